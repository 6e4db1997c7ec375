-- Runs once, when the data folder is empty. The service owns its database and is not a superuser.
\set password `cat /run/secrets/faceid_password`
CREATE ROLE faceid LOGIN PASSWORD :'password';
CREATE DATABASE faceid OWNER faceid;
