"""A drop-in FaceID endpoint for tests, demos and load tests. It uses nothing of the client under test.

It implements DetectAuth, GetDetectInfo, GetDetectInfoEnhanced and GetWeChatBillDetails over HTTP, as Tencent does:
status 200, errors in the body, TC3-HMAC-SHA256 signatures, a rate limit per action. People and media are invented. They
are computed from the BizToken alone, so a test can compute them too. The start of a BizToken selects what happens:
`passed-1`, `failed-2016-anna`, `unfinished-2`, `throttled-3`, `expired`, `http502-x2`. Other tokens pass.

Start it with `faceid-results simulate`, or serve the ASGI application `simulator.server.create_simulator()` yourself.
The official SDK needs the address and the key pair that `simulate` prints:

    profile = ClientProfile(httpProfile=HttpProfile(protocol="http", endpoint="127.0.0.1:8100"))
    credential = Credential("AKIDSIMULATOR", "simulator-key-for-demos-only")
    client = FaceidClient(credential, "", profile)
    request = models.GetDetectInfoRequest()
    request.BizToken, request.RuleId = "failed-2016-anna", "1"
    print(client.GetDetectInfo(request).DetectInfo)

    server           the ASGI application and its ledger at GET /_simulator/ledger
    options          limits, delays and key pairs
    authentication   signature check
    requests         parameters of each action, and Tencent's error
    scenarios        the grammar of scenarios
    answers          response bodies of GetDetectInfo and GetDetectInfoEnhanced
    bills            response bodies of GetWeChatBillDetails
    people, media    the invented persons, pictures and videos
    ledger           rate limits and the list of latest requests
"""
