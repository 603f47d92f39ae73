DO $demotion$
DECLARE
    bootstrap CONSTANT oid := 10;
    app_role CONSTANT text := $role;
    admin text := $superuser;
    statement text;
BEGIN
    IF (SELECT r.oid <> bootstrap FROM pg_catalog.pg_roles r WHERE r.rolname = session_user) THEN
        RETURN;
    END IF;
    -- A dump that was loaded here may have brought the name.
    IF EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = admin) THEN
        admin := 'forebay_superuser';
    END IF;
    CREATE ROLE forebay_renaming SUPERUSER;
    SET LOCAL SESSION AUTHORIZATION forebay_renaming;
    EXECUTE pg_catalog.format('ALTER ROLE %I RENAME TO %I', app_role, admin);
    EXECUTE pg_catalog.format('SET LOCAL SESSION AUTHORIZATION %I', admin);
    DROP ROLE forebay_renaming;
    EXECUTE pg_catalog.format('CREATE ROLE %I LOGIN CREATEDB', app_role);
    FOR statement IN
        SELECT pg_catalog.format('ALTER DATABASE %I OWNER TO %I', d.datname, app_role)
        FROM pg_catalog.pg_database d
        WHERE d.datname = $database AND d.datdba = bootstrap
        UNION ALL
        SELECT pg_catalog.format('ALTER SCHEMA %I OWNER TO %I', n.nspname, app_role)
        FROM pg_catalog.pg_namespace n
        WHERE pg_catalog.current_database() = $database AND n.nspowner = bootstrap
          AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'public')
        UNION ALL
        -- The sequence of a column follows its table.
        SELECT pg_catalog.format('ALTER TABLE %I.%I OWNER TO %I', n.nspname, c.relname, app_role)
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE pg_catalog.current_database() = $database AND c.relowner = bootstrap
          AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                          WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                            AND (d.deptype = 'e' OR c.relkind = 'S' AND d.deptype IN ('a', 'i')))
        UNION ALL
        SELECT pg_catalog.format('ALTER ROUTINE %s OWNER TO %I', p.oid::pg_catalog.regprocedure, app_role)
        FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE pg_catalog.current_database() = $database AND p.proowner = bootstrap
          AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                          WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e')
        UNION ALL
        SELECT pg_catalog.format('ALTER TYPE %s OWNER TO %I', t.oid::pg_catalog.regtype, app_role)
        FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
             LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
        WHERE pg_catalog.current_database() = $database AND t.typowner = bootstrap
          AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
          AND (t.typtype IN ('e', 'd', 'r') OR c.relkind = 'c')
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                          WHERE d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.objid = t.oid AND d.deptype = 'e')
    LOOP
        EXECUTE statement;
    END LOOP;
END
$demotion$
