"""deploy/oauth2.yaml: a person signs in at an OpenID provider, in a browser, and the service knows who it is."""

from __future__ import annotations

from pathlib import Path

import httpx

from clients.oidc.provider import PROXY_SECRET, serving
from e2e.envoy.secure import ANN, SecureEnvoy, World
from support.ports import free_port
from support.process import ServerProcess

NAVIGATES = {"sec-fetch-mode": "navigate", "sec-fetch-site": "none"}


async def sign_in(browser: httpx.AsyncClient, name: str) -> httpx.Response:
    """Open the page and go where it leads, as a person does that signs in; returns the page."""
    login = await browser.get("/", headers=NAVIGATES, follow_redirects=True)
    assert "Sign-in" in login.text, (login.status_code, login.text)
    consent = await browser.post(
        login.url, data={"prompt": "login", "login": name, "password": "x"}, follow_redirects=True
    )
    assert "upload.cancel" in consent.text, consent.text
    return await browser.post(consent.url, data={"prompt": "consent"}, follow_redirects=True)


async def test_a_person_signs_in_at_a_provider_and_cancels(tmp_path: Path) -> None:
    port = free_port()
    with serving(f"https://127.0.0.1:{port}/oauth2/callback") as provider:
        world = World(tmp_path, provider.url)
        for name, secret in (("oauth-client-secret", PROXY_SECRET), ("oauth-hmac-secret", "0123456789" * 4)):
            (tmp_path / name).write_text(secret)
        with (
            ServerProcess(tmp_path / "data", world.options) as world.server,
            SecureEnvoy(world.node, tmp_path, provider.url, port=port, signs_in=True) as world.envoy,
        ):
            await world.envoy.wait_healthy(world.node)
            async with world.client() as browser:
                # A script of a page whose session is over gets no page of the provider's.
                assert (await browser.get("/api/v1/me")).status_code == 401
                page = await sign_in(browser, "ann")
                assert (page.status_code, str(page.url)) == (200, f"{world.envoy.url}/")
                me = (await browser.get("/api/v1/me")).json()
                assert (me["principal"], me["may"]) == (
                    "jwt:ann",
                    ["audit", "cancel", "count", "download", "read", "write"],
                )
                status, file_id = await world.put(browser)
                assert status == 200
                assert (await browser.post(f"/api/v1/upload/cancel/{file_id}", json={})).status_code == 200
                file = (await browser.get(f"/api/v1/files/{file_id}")).json()
                assert (file["owner"], file["cancelled_by"]) == ("jwt:ann", "user:jwt:ann")
                # The proxy's cookies are no page's of another origin, and no script's.
                kept = [cookie for cookie in browser.cookies.jar if cookie.secure]
                assert {cookie.name for cookie in kept} == {"BearerToken", "OauthExpires", "OauthHMAC"}
                for cookie in kept:
                    assert cookie.has_nonstandard_attr("HttpOnly")
                    assert cookie.get_nonstandard_attr("SameSite") == "Lax"
                strange = {"origin": "https://evil.example"}
                answer = await browser.post(f"/api/v1/upload/cancel/{file_id}", json={}, headers=strange)
                assert (answer.status_code, "ORIGIN_NOT_ALLOWED" in answer.text) == (403, True)
                await browser.get("/oauth2/signout")
                assert (await browser.get("/api/v1/me")).status_code == 401
            async with world.client(pair=world.ann) as program:
                assert (await program.get("/api/v1/me")).json()["principal"] == f"cert:uri:{ANN}"
