-- Runs once, when the data folder is empty. The service owns its database and is not a superuser.
\set password `cat /run/secrets/faceid_password`
CREATE ROLE faceid LOGIN PASSWORD :'password';
-- The service needs UTF8, and the locale of an image may have another default.
CREATE DATABASE faceid OWNER faceid ENCODING 'UTF8' TEMPLATE template0;
