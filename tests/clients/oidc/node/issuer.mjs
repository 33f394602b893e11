// An OpenID provider on loopback: `node issuer.mjs AUDIENCE`. Prints its URL once it serves. A line `rotate` on its
// standard input makes it sign by a new key, whose public half stands beside the old one's.
import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import Provider from "oidc-provider";

const audience = process.argv[2];
const keys = [];
let serve = null;

function newKey() {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  keys.unshift({ ...privateKey.export({ format: "jwk" }), kid: `key ${keys.length}`, use: "sig", alg: "RS256" });
}

function provider(issuer) {
  return new Provider(issuer, {
    clients: [
      { client_id: "ann", client_secret: "s3cret", grant_types: ["client_credentials"], redirect_uris: [], response_types: [] },
    ],
    jwks: { keys },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: () => ({
          scope: "upload.read upload.write upload.cancel upload.operate",
          audience,
          accessTokenTTL: 300,
          accessTokenFormat: "jwt",
        }),
      },
    },
  }).callback();
}

const server = createServer((request, response) => serve(request, response));
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const begin = () => {
    newKey();
    serve = provider(issuer);
  };
  begin();
  console.log(issuer);
  createInterface({ input: process.stdin }).on("line", () => {
    begin();
    console.log("rotated");
  }).on("close", () => process.exit(0));
});
