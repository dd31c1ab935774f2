// npm oidc-provider as the authorization server of an MCP server: everybody who asks is let in as the
// same user. Settings come by environment: PORT, TTL_S (of access tokens), TOKENS (their format: opaque
// or jwt), SECRET (of the MCP server, which may introspect), DOCUMENTS (where documents of DOCUMENTS_AT
// really are; without both of them a client id is no URL).
// GET /stats tells what was asked so far, POST /revoke ends every grant,
// POST /forget also every registration.

import { Provider } from "oidc-provider";

const { PORT, TTL_S, TOKENS, SECRET, DOCUMENTS, DOCUMENTS_AT } = process.env;
const issuer = `http://127.0.0.1:${PORT}`;
const clients = new Set();
const grants = new Set();
const stats = {
  registrations: 0,
  documents: 0,
  codes: 0,
  refreshes: 0,
  refused: [],
  reuses: 0,
  revocations: 0,
};

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "mcp-server",
      client_secret: SECRET,
      redirect_uris: [],
      response_types: [],
      grant_types: [],
    },
  ],
  cookies: { keys: [SECRET] },
  clientAuthMethods: ["none", "client_secret_basic", "client_secret_post"],
  features: {
    clientIdMetadataDocument: { enabled: Boolean(DOCUMENTS), ack: "draft-02" },
    devInteractions: { enabled: false },
    introspection: { enabled: true, allowedPolicy: (ctx, client) => client.clientId === "mcp-server" },
    registration: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (ctx, resource) => ({
        scope: "tools",
        audience: resource,
        accessTokenFormat: TOKENS,
      }),
    },
    revocation: { enabled: true },
  },
  // Without its dispatcher, which would keep it from loopback addresses.
  fetch: (url, { method, headers, signal }) => {
    stats.documents += 1;
    return fetch(String(url).replace(DOCUMENTS_AT, DOCUMENTS), { method, headers, signal });
  },
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  pkce: { required: () => true },
  rotateRefreshToken: true,
  scopes: ["openid", "offline_access"],
  ttl: { AccessToken: Number(TTL_S), Grant: 3600, Interaction: 60, RefreshToken: 3600, Session: 60 },
});

provider.on("registration_create.success", (ctx, client) => {
  stats.registrations += 1;
  clients.add(client.clientId);
});
provider.on("grant.success", (ctx) => {
  stats[ctx.oidc.params.grant_type === "refresh_token" ? "refreshes" : "codes"] += 1;
  grants.add(ctx.oidc.entities.Grant.jti);
});
provider.on("grant.error", (ctx, error) => {
  stats.refused.push(error.error);
  if (error.error_detail === "refresh token already used") stats.reuses += 1;
});

async function consent(ctx) {
  const { params } = await provider.interactionDetails(ctx.req, ctx.res);
  const grant = new provider.Grant({ accountId: "somebody", clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  grant.addResourceScope(params.resource, params.scope);
  const result = { login: { accountId: "somebody" }, consent: { grantId: await grant.save() } };
  await provider.interactionFinished(ctx.req, ctx.res, result);
  ctx.respond = false;
}

async function revoke() {
  for (const id of grants) {
    for (const model of [provider.AccessToken, provider.RefreshToken, provider.AuthorizationCode])
      await model.revokeByGrantId(id);
    await provider.Grant.adapter.destroy(id);
  }
  grants.clear();
}

async function forget() {
  await revoke();
  for (const id of clients) await provider.Client.adapter.destroy(id);
  clients.clear();
}

provider.use(async (ctx, next) => {
  if (ctx.path === "/stats") ctx.body = stats;
  else if (ctx.path === "/revoke") ctx.body = (await revoke()) ?? {};
  else if (ctx.path === "/forget") ctx.body = (await forget()) ?? {};
  else if (ctx.path.startsWith("/interaction/")) await consent(ctx);
  else {
    await next();
    if (ctx.oidc?.route === "revocation" && ctx.status === 200 && ctx.oidc.entities.RefreshToken)
      stats.revocations += 1;
  }
});

provider.listen(Number(PORT), "127.0.0.1");
