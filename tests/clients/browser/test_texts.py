"""Texts of callers on the page at /: nothing in them is invisible, and they turn no other words around."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import expect

from clients.browser.conftest import LOOP, OpenPage
from clients.browser.test_console import announce, cancel
from support.process import ServerProcess

pytestmark = pytest.mark.asyncio(loop_scope=LOOP)

# Every text that a person can see, hear or point at.
EVERYTHING = """() => {
  const texts = [document.title];
  const walk = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) texts.push(walk.currentNode.data);
  for (const element of document.querySelectorAll("*")) {
    for (const name of ["title", "aria-label", "placeholder", "alt"]) texts.push(element.getAttribute(name) ?? "");
  }
  return texts;
}"""
# Isolates around a caller's text are ours: they are taken away in pairs before anything is looked for.
ISOLATED = re.compile("\u2068([^\u2068\u2069]*)\u2069")
HIDDEN = re.compile("[\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff]")
REASON = "wrong \u202e\u2067customer\u3164"


async def test_no_text_of_a_caller_hides_or_turns_what_others_read(open_page: OpenPage, server: ServerProcess) -> None:
    visitor = await open_page(server.url)
    await announce(server, "invoice\u202efdp.exe", 7)
    await announce(server, "\u3164", 7)
    await cancel(server, await announce(server, "photo\u2067gpj.scr\u200b", 7), REASON)
    row = visitor.row("photo")
    await expect(row.line).to_have_text(re.compile(r"“wrong \\u202e\\u2067customer\\u3164”$"))
    await expect(visitor.row("invoice").row.locator(".name")).to_have_text(r"invoice\u202efdp.exe")
    await expect(visitor.row(r"\u3164").cancel).to_have_accessible_name(re.compile(r"^Cancel .?\\u3164.?$"))
    await row.details.click()
    await expect(visitor.page.locator("#details-title")).to_have_text(r"photo\u2067gpj.scr\u200b")
    await expect(visitor.page.locator("#trail q")).to_have_text(r"wrong \u202e\u2067customer\u3164")
    for text in await visitor.page.evaluate(EVERYTHING):
        assert not HIDDEN.search(ISOLATED.sub(r"\1", text)), ascii(text)


async def test_a_name_from_right_to_left_turns_around_itself_alone(open_page: OpenPage, server: ServerProcess) -> None:
    visitor = await open_page(server.url)
    name = "דוח 2024.pdf"
    await cancel(server, await announce(server, name, 7), "לא נכון (1)")
    row = visitor.row(name)
    await expect(row.row.locator(".name bdi")).to_have_css("direction", "rtl")
    await expect(row.line.locator("bdi")).to_have_css("direction", "rtl")
    await expect(row.line).to_have_css("direction", "ltr")
    told = visitor.page.locator("#feed li", has_text="לא נכון").first
    await expect(told.locator("bdi")).to_have_text([name, "לא נכון (1)"])


async def test_marks_heaped_on_a_letter_stay_in_their_own_line(open_page: OpenPage, server: ServerProcess) -> None:
    visitor = await open_page(server.url)
    await announce(server, "heap x" + "\u0336\u0489" * 40, 7)
    row = visitor.row("heap")
    await expect(row.row.locator(".name")).to_have_css("overflow-y", "clip")
