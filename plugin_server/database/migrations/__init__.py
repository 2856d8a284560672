"""How the tables came to be what tables.py says: one file in `versions` a step, applied by plugin_server.database.migrate.

To change a table: change tables.py, run tests/contract/test_migrations.py, which prints what a new file has to do, write
it as the next in line, and set HEAD. A file that was released is never changed. Each must work on both databases;
SQLite adds and renames columns, for more there is `op.batch_alter_table`. Workers of the version before run on the new
tables during an upgrade, so what they use goes a version later than its last use.
"""

HEAD = "0002"
"""The newest step. Here, so that an up-to-date server need not load Alembic, which takes a quarter of a second"""
