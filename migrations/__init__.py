"""The database schema, one hand-named step a file; run by `store.session.Database.upgrade`."""
