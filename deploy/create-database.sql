-- Runs when the data folder is empty, and can be run again. One role owns the tables and migrates, and the other one
-- serves: `migrate` lets it read and write rows. Neither is a superuser.
\set owner_password `cat /run/secrets/owner_password`
\set password `cat /run/secrets/faceid_password`
SELECT 'CREATE ROLE faceid_owner' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'faceid_owner') \gexec
SELECT 'CREATE ROLE faceid' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'faceid') \gexec
ALTER ROLE faceid_owner LOGIN PASSWORD :'owner_password';
ALTER ROLE faceid LOGIN PASSWORD :'password';
-- The service needs UTF8, and the locale of an image may have another default.
SELECT $$CREATE DATABASE faceid OWNER faceid_owner ENCODING 'UTF8' TEMPLATE template0$$
  WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'faceid') \gexec
-- In installations of earlier versions the service owned the tables. It must work until `migrate` limits it.
\connect faceid
BEGIN;
REASSIGN OWNED BY faceid TO faceid_owner;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO faceid;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO faceid;
COMMIT;
