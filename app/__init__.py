"""faceid-results: retrieves, keeps and serves the results of Tencent Cloud FaceID verifications.

The story of one verification, step by step, and the room where each step lives:

1. callback  a back end or a browser says that a person is done      `routers.callbacks` -> `services.receive`
2. claim     a worker takes the row that is due, within the quota      `services.retrieve`, `storage.queue`
3. fetch     GetDetectInfo, signed, streamed, media lifted on the way   `faceid.client`, `faceid.signing`, `faceid.lift`
4. decode    Tencent's document becomes our `Detection`                `faceid.decode` -> `domain.detection`
5. decide    store, look again, retry or give up                       `domain.decision`
6. put       bytes first, under fresh keys; then the row that names them `storage.media`, `storage.results`
7. query     a business system waits, reads, lists, downloads           `routers.verifications` -> `services.query`

`factory` builds the services from `config`; `main` serves them over HTTP, `worker` runs the loops, `cli` is the command
line, `demo` shows all of it at work against the `simulator`.
"""
