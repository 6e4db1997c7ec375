// A certified provider of OpenID Connect with two people: anna, an administrator, and bert, who has no role.
import { createServer } from "node:http";

import { Provider } from "oidc-provider";

const [client_id, client_secret, redirect_uri] = process.argv.slice(2);
const people = {
  anna: { name: "Anna Example", groups: ["faceid-admins"] },
  bert: { name: "Bert Example", groups: [] },
};
const server = createServer().listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{ client_id, client_secret, redirect_uris: [redirect_uri] }],
    pkce: { required: () => true },
    claims: { openid: ["sub"], profile: ["name", "groups"] },
    cookies: { keys: ["a throw-away key"] },
    features: { devInteractions: { enabled: true } },
    findAccount: (_, id) => people[id] && { accountId: id, claims: () => ({ sub: id, ...people[id] }) },
  });
  server.on("request", provider.callback());
  console.log(issuer);
});
