"""Encryption: stored personal data can be read only with the key ring, and only in their own place.

Everything here is pure except for the file of the key ring.

keyring         the keys that wrap other keys, in versions, in one file outside the database
fields          text values, each under its verification's key, bound to its table, column and row
blobs           media, streamed, each under its own key, with random access
personal_data   applies all of them to the rows of a verification
"""
