"""Our stores: the database (SQLite or Postgres, by the same statements) and the media (a folder, or any S3)."""
