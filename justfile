# Compares answers with PostgreSQL, DuckDB, the plain events and a recompute: `just differ --cases 100000`.
differ *arguments:
    cargo run --locked -p integration-tests --bin differ -- {{arguments}}
