"""Which clients may send requests, and which requests."""

import time

import pytest
from in_thread import running, settings

from photos import png
from pipeline.artifacts.workspace import Workspace
from pipeline.errors import PipelineError
from pipeline.serving.server import serve

TOKEN = "0123456789abcdef0123456789abcdef"


def test_unknown_host_names_are_refused(client):
    """This keeps pages of other sites from reaching the server under their own name (DNS rebinding)."""
    for name in ("localhost", "127.0.0.1", f"127.0.0.1:{client.port}", "LOCALHOST:1", "[::1]:80"):
        assert client.get("/health", Host=name).status == 200
    for name in ("example.org", f"example.org:{client.port}", "127.0.0.1.example.org", "", "[::1]x"):
        answer = client.get("/health", Host=name)
        assert answer.status == 421, name
        assert "--allowed-hosts" in answer.json["error"]


def test_requests_from_other_sites_are_refused(client, digits):
    picture = png(digits[0][0])
    answer = client.post("/predict", picture, Origin="https://example.org")
    assert answer.status == 403
    assert client.post("/predict", picture, Origin="null").status == 403
    own = client.post("/predict", picture, Origin=client.address)
    assert own.status == 200
    assert "access-control-allow-origin" not in own.headers


def test_requests_from_an_allowed_site_are_answered(served, digits):
    with running(served, origins=("https://example.org",)) as client:
        answer = client.post("/predict", png(digits[0][0]), Origin="https://example.org")
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == "https://example.org"
        preflight = client.ask(
            "OPTIONS",
            "/predict",
            headers={
                "Origin": "https://example.org",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization",
            },
        )
        assert preflight.status == 200
        assert client.post("/predict", png(digits[0][0]), Origin="https://example.com").status == 403


def test_with_a_token_only_the_page_and_the_health_are_public(served, digits):
    with running(served, token=TOKEN) as client:
        for path in ("/", "/health", "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status == 200
        for path in ("/model", "/metrics", "/card", "/v2", "/v2/models/digits", "/nowhere"):
            answer = client.get(path)
            assert answer.status == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"
        picture = png(digits[0][0])
        assert client.post("/predict", picture).status == 401
        assert client.post("/predict", picture, Authorization=f"Bearer {TOKEN[:-1]}").status == 401
        assert client.post("/predict", picture, Authorization=f"Basic {TOKEN}").status == 401
        assert client.post("/predict", picture, Authorization=f"Bearer {TOKEN}").status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_machines_need_an_allowed_name_and_the_token(host):
    for given in ({}, {"hosts": ("example.org",)}, {"token": TOKEN}):
        with pytest.raises(PipelineError, match=r"--allowed-hosts NAME.*PIPELINE_TOKEN"):
            settings(host=host, **given).access()
    with pytest.raises(PipelineError, match="PIPELINE_TOKEN has 5 characters"):
        settings(host=host, hosts=("example.org",), token="short").access()
    assert "example.org" in settings(host=host, hosts=("Example.org",), token=TOKEN).access().hosts


def test_host_names_are_normalised_or_refused_and_never_block_everybody():
    """A name that no Host or Origin header can contain would silently block every client."""
    names = settings(hosts=("Example.org", "fd00::1", "[fd00::2]", "192.0.2.1"), host="::1").access().hosts
    assert {"example.org", "[fd00::1]", "[fd00::2]", "192.0.2.1", "[::1]", "localhost"} <= names
    for name in (
        "https://example.org",
        "example.org:8000",
        "example.org:*",
        "a.org,b.org",
        "",
        "example.org/",
    ):
        with pytest.raises(PipelineError, match=r"--allowed-hosts .* leave out https://"):
            settings(hosts=(name,)).access()
    assert "https://example.org:8443" in settings(origins=("https://Example.org:8443",)).access().origins
    for site in (
        "example.org",
        "https://example.org/",
        "https://example.org/page",
        "*",
        "https://*.example.org",
    ):
        with pytest.raises(PipelineError, match=r"--allow-origin .* https://NAME"):
            settings(origins=(site,)).access()


@pytest.mark.parametrize("host", ["no.such.host.example.invalid", "192.0.2.1"])
def test_for_an_address_of_another_machine_no_other_port_is_suggested(host, tmp_path):
    with pytest.raises(PipelineError, match=rf"--host {host} is not an address of this machine") as refusal:
        serve(settings(host=host, hosts=("example.org",), token=TOKEN), Workspace(tmp_path))
    assert "--port" not in str(refusal.value)


def test_the_page_runs_its_own_script_only(client):
    page = client.get("/")
    assert page.status == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "'unsafe" not in policy
    assert "connect-src 'self'" in policy
    assert policy.count("'sha256-") == 2
    # No address but those of this server: it works without a network.
    text = page.content.decode().replace("http://www.w3.org/2000/svg", "")
    assert "http://" not in text
    assert "https://" not in text


def test_answers_forbid_browsers_to_guess_their_type_and_to_cache_them(client, digits):
    for answer in (client.post("/predict", png(digits[0][0])), client.get("/nowhere"), client.get("/")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page.html", "/v2/models/..%2f..%2fetc", "//etc"],
)
def test_no_path_leads_to_a_file(client, path):
    assert client.get(path).status == 404


def test_unsupported_methods_are_refused(client):
    answer = client.get("/predict")
    assert answer.status == 405
    assert answer.json["error"] == "/predict takes POST, not GET."
    assert client.ask("DELETE", "/model").status == 405


def test_the_log_contains_nothing_of_a_request(served, capfd):
    with running(served) as client:
        client.post("/predict", b"SECRET-IMAGE")
        client.get("/health", Host="SECRET-HOST")
        time.sleep(0.1)
    assert "SECRET" not in "".join(capfd.readouterr())
