-- What the operator of Heyuan needs on a PostgreSQL server where it makes tenants' databases. To be run once per server by a superuser, or
-- by whatever role a managed service gives its administrators; running it again changes nothing.
--
--   psql -h HOST -d postgres -v name=heyuan_operator -v password=PASSWORD -f docs/operator.sql
--
-- Then put the same name and password into the secret that the class's `adminSecretName` names.
--
-- Variables:
--   name      the operator's role. Keep it for the server's life: it administers what it has made, and another role does not.
--   password  its password, or the SCRAM verifier of it. A server that logs statements logs what stands here: leave it out there and set
--             the password afterwards with psql's own \password, which sends a verifier.
--   shared    set it to anything where people other than Heyuan's tenants use this server: the last part is left out then (see there).
--
-- PostgreSQL 16 or newer in production. There, CREATEROLE reaches only the roles that the operator has made itself. On 15 the same word
-- makes the operator's role nearly a superuser: it may change any role that is none, and take pg_execute_server_program. Tenants get no
-- more on 15 than on 16, but who has the operator's password has the server.

\set ON_ERROR_STOP on

-- An ordinary role. CREATEROLE: an owner and two log-ins per tenant. CREATEDB: a database per tenant. It owns none of them, is a member of
-- a tenant's role only for the moment in which PostgreSQL wants that, and can't connect to a tenant's database.
SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'name') AS missing \gset
\if :missing
CREATE ROLE :"name" LOGIN;
\endif
ALTER ROLE :"name" LOGIN INHERIT CREATEROLE CREATEDB;
\if :{?password}
ALTER ROLE :"name" PASSWORD :'password';
\endif

-- Where it sends its statements: `postgres`. Its own grant, since PUBLIC's may go below.
GRANT CONNECT ON DATABASE postgres TO :"name";

-- A tenant's database admits nobody but the tenant, whatever stands here. But PUBLIC, and with it every tenant, may connect to the
-- databases that a server starts with, read what lies there for all, and fill the disk with temporary tables. This takes it away, for
-- every ordinary role that has no grant of its own: hence `shared`. With `shared`, tenants may also hold locks in `postgres` that keep the
-- operator waiting. Other databases of the server want the same line from their owners.
\if :{?shared}
\echo 'PUBLIC keeps what it may do in the databases postgres and template1.'
\else
REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
\endif
