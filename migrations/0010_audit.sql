-- Audit: who asked for what, and what became of it. `event` is the whole audit.k8s.io/v1 Event; the columns are what is
-- searched by. Texts that the request doesn't have are empty.
CREATE TABLE audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at timestamptz NOT NULL,
    audit_id text NOT NULL,
    stage text NOT NULL,
    username text NOT NULL,
    impersonated text NOT NULL,
    verb text NOT NULL,
    api_group text NOT NULL,
    resource text NOT NULL,
    subresource text NOT NULL,
    namespace text NOT NULL,
    name text NOT NULL,
    code int NOT NULL,
    event json NOT NULL
);
CREATE INDEX audit_received_at ON audit (received_at);
CREATE INDEX audit_object ON audit (resource, namespace, name, received_at);
