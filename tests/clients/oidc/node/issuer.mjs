// An OpenID provider on loopback: `node issuer.mjs AUDIENCE [CALLBACK]`. Prints its URL once it serves. A line `rotate` on
// its standard input makes it sign by a new key, whose public half stands beside the old one's. With CALLBACK people sign
// in on its pages, by any name, for the proxy that has this address.
import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import Provider from "oidc-provider";

const [audience, callback] = process.argv.slice(2);
const keys = [];
let serve = null;

const proxy = {
  client_id: "upload-service",
  client_secret: "pr0xy",
  grant_types: ["authorization_code", "refresh_token"],
  redirect_uris: [callback],
  token_endpoint_auth_method: "client_secret_post",
};

function newKey() {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  keys.unshift({ ...privateKey.export({ format: "jwk" }), kid: `key ${keys.length}`, use: "sig", alg: "RS256" });
}

function provider(issuer) {
  return new Provider(issuer, {
    clients: [
      { client_id: "ann", client_secret: "s3cret", grant_types: ["client_credentials"], redirect_uris: [], response_types: [] },
      ...(callback ? [proxy] : []),
    ],
    jwks: { keys },
    features: {
      devInteractions: { enabled: Boolean(callback) },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        // The proxy names the resource when it asks for the code, and not again when it asks for the token.
        useGrantedResource: () => true,
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
