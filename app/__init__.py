"""faceid-results: retrieves, stores and serves the results of Tencent Cloud FaceID verifications.

The story of one verification, step by step, and where each step lives:

1. callback  a back end or a browser reports that a person is done     `routers.callbacks` -> `services.intake`
2. claim     a worker claims the due row, within the quota             `services.claim` -> `storage.queue`
3. fetch     GetDetectInfo, signed and streamed; media lifted out     `faceid.client`, `faceid.signing`, `faceid.lifter`
4. decode    Tencent's document becomes our `Detection`                `faceid.decode` -> `domain.detection`
5. put       bytes first, encrypted, under new keys                    `services.retrieve` -> `sealing`, `storage.media`
   decide    store, poll again, retry, pause or give up                `domain.decision` -> `domain.lifecycle`
6. record    then the rows that name them, many at once                `services.record` -> `sealing.personal_data`
7. query     a business system waits, reads, lists, downloads          `routers` -> `services.read`, `services.media`
8. notify    the changes, in one order, for those who follow them     `domain.events` -> `services.outbox`, `.events`

People use `console`: `services.sessions` signs them in by key, `services.single_sign_on` by a provider, which `oidc`
calls. `services.disclosures` shows unmasked data for a purpose. `services.history` and `services.overview` read for the
pages.

In addition, `services.billing` finds verifications that were never reported. `services.health` shows an operator where
to act, `services.gauges` sets the metrics, and `services.workers` reports which workers run. `services.clock` sets the
clock and says when it is in doubt, and `services.media_guard` says when media may be fetched.
`services.orphans` deletes objects that no row names, and `services.erase` erases after the retention.
`services.webhook_endpoints` manages the receivers of events, `services.deliver` sends the events to them by `webhooks`,
and `services.deliveries` shows and repeats what was sent. `services.audit` records who saw what, and
`services.key_rotation` renews the keys. `services.batching` lets concurrent calls share a transaction.
`faceid.error_codes` has what an error code means for step 5.

`factory` builds the services from `config`, `main` serves them over HTTP, `worker` runs retrievals and chores, `doctor`
diagnoses an installation, and `cli` is the command line, which `start` imports.
"""
