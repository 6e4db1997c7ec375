"""Tencent Cloud FaceID. No other package knows its API.

`client` sends requests, which `signing` signs with the keys of `credentials`, over the HTTP connections of `transport`.
`lifter` takes the media out of the response body while it streams in. `decode` maps the rest to our domain values, and
`extras` keeps the fields that have no mapping. `error_codes` says what an error code means and what to do about it.
"""
