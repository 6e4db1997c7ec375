"""A FaceID that runs anywhere: for tests, demos and load, for our client and for anybody's, the official SDK included.

It speaks to strangers as Tencent does (`server`): it checks the signature (`gate`), the parameters (`requests`) and the
quota (`traffic`), plays the scenario that the BizToken asks for (`scenarios`), and answers with a person (`people`) and
media (`media`) that nobody is, each computed from the BizToken alone (`answers`), so that a test can compute them too.
Whom it has seen finished, it bills (`bills`).
"""
