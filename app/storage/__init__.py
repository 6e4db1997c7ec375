"""Storage: the database (SQLite or Postgres, by the same statements) and the media store (a folder, or any S3)."""
