-- Runs once, when the data folder is empty: the service owns its database and is no superuser.
\set password `cat /run/secrets/faceid_password`
CREATE ROLE faceid LOGIN PASSWORD :'password';
CREATE DATABASE faceid OWNER faceid;
