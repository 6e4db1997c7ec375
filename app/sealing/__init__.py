"""Sealing: what is stored of a person can be read with the key ring only, and moved nowhere.

Pure but for the file of the ring.

keyring   the keys that wrap other keys, in versions, in one file outside the database
fields    text, each value under its verification's own key, bound to its table, column and row
blobs     media, streamed, each under its own key, with random access
"""
