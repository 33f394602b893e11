"""Which method a request reaches, and what its path variables hold."""

import pytest

from toy.asgi_client import request
from toy.toy_service import Toy
from transcoder.router import CollisionError, Router
from transcoder.template import TemplateError, parse_template


def router_of(*routes: str) -> Router[str]:
    router: Router[str] = Router()
    for route in routes:
        method, template = route.split(" ")
        router.add(method, parse_template(template), route)
    return router


def find(router: Router[str], method: str, path: str) -> tuple[str, tuple[str, ...]] | frozenset[str]:
    found = router.find(method, path)
    return found if isinstance(found, frozenset) else (found.target, found.values)


NOTHING: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "{x}",
        "//",
        "/a/",
        "/a//b",
        "/{}",
        "/:verb",
        "/a/:verb",
        "/:",
        "/*:",
        "/**:",
        "/{x}:",
        "/a/{",
        "/a/{x",
        "/a/x}",
        "/a/{x.",
        "/a/{x.}",
        "/a/{.x}",
        "/a/{x..y}",
        "/a/{x=}",
        "/a/{x=/b}",
        "/a/{x=b/}",
        "/a/{x=b:c}",
        "/a/{x=b//c}",
        "/{x=a/{y=b}}",
        "/{x={y}}",
        "/a{x}",
        "/{x}a",
        "/{x}{y}",
        "/{x}-{y}",
        "/a*",
        "/*a",
        "/***",
        "/**/a",
        "/a/**/b",
        "/{x=**}/a",
        "/{x=a/**/b}",
        "/{x=**}/{y=**}",
        "/**/**",
        "/{x}/{x}",
        "/{1x}",
        "/{x-y}",
        "/{ x}",
        "/a b",
        "/a?b",
        "/a#b",
        "/a%2",
        "/a%zz",
        "/a%ff",
        "/a:b/c",
        "/a\x00",
    ],
)
def test_bad_templates(text: str) -> None:
    with pytest.raises(TemplateError):
        parse_template(text)


@pytest.mark.parametrize(
    "text",
    [
        "/",
        "/a",
        "/*",
        "/**",
        "/a/b:verb",
        "/*:verb",
        "/**:verb",
        "/{x}",
        "/{x.y_z.Z1}",
        "/{x=*}",
        "/{x=a/*/b/**}:verb",
        "/{x=a}/{y=*/*}",
        "/caf%C3%A9/@me/a+b",
        "/{x}:a:b",
    ],
)
def test_good_templates(text: str) -> None:
    assert parse_template(text).text == text


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/b", ("GET /a/b", ())),
        ("/a/c", ("GET /a/{x}", ("c",))),
        ("/a/c/d", ("GET /a/{x=**}", ("c/d",))),
        ("/a", ("GET /a/{x=**}", ("",))),
        ("/a/b/c", ("GET /a/{x}/c", ("b",))),  # back from the literal /a/b
        ("/a/b/c/d", ("GET /a/{x=**}", ("b/c/d",))),
        ("/b/b", ("GET /{x}/b", ("b",))),
        ("/b/c", ("GET /**", ())),
        ("/", ("GET /**", ())),
        ("/a/b:go", ("GET /a/{x}:go", ("b",))),
        ("/a/b/c:go", ("GET /a/{x=**}", ("b/c:go",))),
        ("/a/b%3Ago", ("GET /a/{x}", ("b:go",))),
        ("/a/b:stop", ("GET /a/{x}", ("b:stop",))),
        ("/a/b:go:go", ("GET /a/{x}:go", ("b:go",))),
        ("/a/b:stop:go", ("GET /a/{x}:go", ("b:stop",))),
        ("/a/b:g%6f", ("GET /a/{x}:go", ("b",))),
        ("/%61/%62", ("GET /a/b", ())),
        ("/a/b%2Fc", ("GET /a/{x}", ("b/c",))),
    ],
)
def test_preference_and_backtracking(path: str, expected: object, reverse: bool) -> None:
    routes = [
        "GET /a/b",
        "GET /a/{x}",
        "GET /a/{x=**}",
        "GET /a/{x}/c",
        "GET /{x}/b",
        "GET /**",
        "GET /a/{x}:go",
    ]
    router = router_of(*(reversed(routes) if reverse else routes))
    assert find(router, "GET", path) == expected


def test_backtracking_on_the_method() -> None:
    router = router_of("POST /a/b", "GET /a/{x}", "PUT /{x=**}", "POST /a/{x}:go")
    assert find(router, "POST", "/a/b") == ("POST /a/b", ())
    assert find(router, "GET", "/a/b") == ("GET /a/{x}", ("b",))
    assert find(router, "PUT", "/a/b") == ("PUT /{x=**}", ("a/b",))
    assert find(router, "PATCH", "/a/b") == frozenset({"POST", "GET", "PUT"})
    assert find(router, "GET", "/a/b:go") == ("GET /a/{x}", ("b:go",))
    assert find(router, "HEAD", "/a/b") == ("GET /a/{x}", ("b",))


@pytest.mark.parametrize("path", ["//a", "//", "/b/", "/b//c", "/b/1/"])
def test_no_empty_segments_but_in_the_rest(path: str) -> None:
    router = router_of("GET /a/{x=**}", "GET /b/{x}", "GET /a/b")
    assert find(router, "GET", path) == NOTHING


@pytest.mark.parametrize(
    ("path", "rest"),
    [
        ("/a", ""),
        ("/a/", ""),
        ("/a//", "/"),
        ("/a//b", "/b"),
        ("/a/b/", "b/"),
        ("/a/b//c", "b//c"),
        ("/a/%2F/", "%2F/"),
    ],
)
def test_the_rest_is_any_rest(path: str, rest: str) -> None:
    router = router_of("GET /a/{x=**}", "GET /b/{x}", "GET /a/b")
    assert find(router, "GET", path) == ("GET /a/{x=**}", (rest,))


@pytest.mark.parametrize("path", ["/a/:go", "/:go"])
def test_an_empty_variable_before_a_verb_is_no_value_of_another_route(path: str) -> None:
    router = router_of("POST /a/{x}:go", "GET /a/{x}", "POST /a/{x=b/**}", "POST /{x}:go")
    assert find(router, "POST", path) == NOTHING
    assert find(router, "GET", path) == NOTHING


def test_verbs_belong_to_their_own_template() -> None:
    router = router_of("POST /a/{x}:go", "POST /b/{x}", "POST /c/{x=**}:go", "POST /d/e:go")
    assert find(router, "POST", "/b/1:go") == ("POST /b/{x}", ("1:go",))
    assert find(router, "POST", "/a/1") == NOTHING
    assert find(router, "POST", "/a/1:stop") == NOTHING
    assert find(router, "POST", "/a/1%3Ago") == NOTHING
    assert find(router, "POST", "/c:go") == ("POST /c/{x=**}:go", ("",))
    assert find(router, "POST", "/c/1/2:go") == ("POST /c/{x=**}:go", ("1/2",))
    assert find(router, "POST", "/d/e:go") == ("POST /d/e:go", ())
    assert find(router, "POST", "/d/e%3Ago") == NOTHING
    assert find(router, "POST", "/a:go/1:go") == NOTHING


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("/s/1/b/2", ("s/1/b/2",)),
        ("/s/1/b", ("s/1/b",)),
        ("/s/a%2Fb/b/c%2fd", ("s/a%2Fb/b/c%2fd",)),
        ("/s/a%20b/b/%3A%25", ("s/a b/b/:%",)),
        ("/s/%C3%A9/b/%252F", ("s/é/b/%2F",)),
    ],
)
def test_multi_segment_variables_keep_encoded_slashes(path: str, values: tuple[str, ...]) -> None:
    assert find(router_of("GET /{x=s/*/b/**}"), "GET", path) == ("GET /{x=s/*/b/**}", values)


def test_single_segment_variables_decode_once_and_fully() -> None:
    router = router_of("GET /{x}", "GET /l/{x=y%20z}")
    assert find(router, "GET", "/a%2Fb%252F%C3%A9+") == ("GET /{x}", ("a/b%2Fé+",))
    assert find(router, "GET", "/l/y%20z") == ("GET /l/{x=y%20z}", ("y z",))


def test_a_deep_variable_of_one_segment_is_still_of_many() -> None:
    assert find(router_of("GET /{x=**}"), "GET", "/a%2Fb") == ("GET /{x=**}", ("a%2Fb",))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("GET /a/{x}", "GET /a/{y}"),
        ("GET /a/{x}", "GET /a/*"),
        ("GET /a/{x=**}", "GET /a/**"),
        ("GET /{x=a/*}", "GET /a/{y}"),
        ("GET /a/b:c", "GET /a/b:c"),
        ("GET /a%2Db", "GET /a-b"),
    ],
)
def test_collisions(first: str, second: str) -> None:
    with pytest.raises(CollisionError):
        router_of(first, second)


def test_no_collision_where_something_differs() -> None:
    router_of("GET /a/{x}", "POST /a/{x}", "GET /a/{x}:v", "GET /a/{x=**}", "GET /a/b", "GET /{x}/b", "* /a/{x}")


async def test_known_path_wrong_method(toy: Toy) -> None:
    answer = await request(toy.app, "POST", "/v1/books/1")
    assert answer.status == 405
    assert answer.header("allow") == "DELETE, FETCH, GET, HEAD, OPTIONS, PATCH, PUT"
    assert answer.json() == {"code": 12, "message": "Method Not Allowed", "details": []}


async def test_options(toy: Toy) -> None:
    answer = await request(toy.app, "OPTIONS", "/v1/shelves/1/books")
    assert (answer.status, answer.header("allow"), answer.body) == (204, "OPTIONS, POST", b"")
    assert (await request(toy.app, "OPTIONS", "/v1/nowhere")).status == 404


async def test_head_of_a_get_route(toy: Toy) -> None:
    get = await request(toy.app, "GET", "/v1/books/1")
    head = await request(toy.app, "HEAD", "/v1/books/1")
    assert toy.shelves.called == "GetBook"
    assert (head.status, head.body) == (200, b"")
    assert head.headers == get.headers
    missing = await request(toy.app, "HEAD", "/v1/nowhere")
    assert (missing.status, missing.body) == (404, b"")
    wrong = await request(toy.app, "HEAD", "/v1/shelves/1/books")
    assert (wrong.status, wrong.body, wrong.header("allow")) == (405, b"", "OPTIONS, POST")


@pytest.mark.parametrize("method", ["GET", "PUT", "BREW", "OPTIONS", "HEAD"])
async def test_a_custom_star_takes_every_method(toy: Toy, method: str) -> None:
    assert (await request(toy.app, method, "/v1/anything")).status == 200
    assert toy.shelves.called == "AnyVerb"


async def test_custom_kinds_are_methods_of_their_own(toy: Toy) -> None:
    assert (await request(toy.app, "FETCH", "/v1/books/1")).json()["id"] == "1"
    assert (await request(toy.app, "fetch", "/v1/books/1")).status == 405


@pytest.mark.parametrize(
    ("method", "path", "called"),
    [
        ("GET", "/v1/shelves/1/books/2", "GetBook"),
        ("GET", "/v1/books/2", "GetBook"),
        ("GET", "/v1/books/star", "StarBook"),
        ("GET", "/v1/shelves/1/books/2/3:byName", "GetBook"),
        ("POST", "/v1/books/star:cancel", "CancelBook"),
        ("DELETE", "/v1/books/star", "DeleteBook"),
        ("PATCH", "/v1/books/1", "UpdateBook"),
        ("PUT", "/v1/books/1", "UpdateBook"),
        ("GET", "/v1/deep", "DeepBook"),
        ("GET", "/v1/deep/1/2/3", "DeepBook"),
    ],
)
async def test_every_binding_reaches_its_method(toy: Toy, method: str, path: str, called: str) -> None:
    assert (await request(toy.app, method, path)).status == 200
    assert toy.shelves.called == called


@pytest.mark.parametrize(
    "path",
    [
        "/v1/books/%",
        "/v1/books/%2",
        "/v1/books/%zz",
        "/v1/books/%ff",
        "/v1/books/%C3",
        "/v1/books/%ED%A0%80",
        "/v1/deep/%C3%2F%A9",
        "/nowhere/%",
        "/v1/books/a:%f",
        "/v1/books/\xff",
    ],
)
async def test_malformed_paths(toy: Toy, path: str) -> None:
    answer = await request(toy.app, "GET", path)
    assert answer.status == 400
    assert answer.json()["code"] == 3


@pytest.mark.parametrize("path", ["/v1/books/", "/v1//books", "/v1/books//", "/v1//deep", "/", "//"])
async def test_empty_segments_are_not_found(toy: Toy, path: str) -> None:
    answer = await request(toy.app, "GET", path)
    assert (answer.status, answer.json()) == (404, {"code": 5, "message": "Not Found", "details": []})


async def test_the_rest_keeps_its_empty_segments(toy: Toy) -> None:
    assert (await request(toy.app, "GET", "/v1/deep/a//b")).json()["name"] == "a//b"
    assert (await request(toy.app, "GET", "/v1/deep/")).json()["name"] == ""


async def test_methods_without_rule_cannot_be_reached(toy: Toy) -> None:
    assert (await request(toy.app, "POST", "/toy.v1.Shelves/Hidden", {})).status == 404


async def test_root_path_is_cut_off(toy: Toy) -> None:
    answer = await request(toy.app, "GET", "/v1/books/a%2Fb", root_path="/api")
    assert answer.json()["id"] == "a/b"


async def test_a_scope_without_raw_path(toy: Toy) -> None:
    from toy.asgi_client import Exchange  # noqa: PLC0415

    for method, path in (("GET", "/v1/books/a%20b"), ("POST", "/v1/books/a%20b:cancel")):
        exchange = Exchange(toy.app, method, path)
        del exchange._scope["raw_path"]
        exchange.feed()
        assert (await exchange.run()).json()["id"] == "a b"
