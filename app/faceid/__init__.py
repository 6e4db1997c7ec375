"""Tencent Cloud FaceID, and nothing else in this service knows it: requests are signed, sent, read and understood here.

`signing` makes the TC3 signature, `client` calls, `lift` takes the media out of the body while it streams in, `decode`
turns what is left into our own `Detection` and keeps what is `further` in it, `bills` finds the BizTokens that were
charged for, `codes` says what an error means.
"""
