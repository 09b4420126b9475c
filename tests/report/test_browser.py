"""The page of a real run in a browser: silent, nowhere wider than a phone, and it can be used."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lis2_lightning.report.page import write_page

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]
FLAGS = (
    "--headless",
    "--no-sandbox",  # root cannot have one
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
SCREENSHOTS = "LIS2_SCREENSHOTS"  # names a folder where pictures are kept to be looked at
Driver = Any


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Chromium, which notes every request and each message of its console."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    browser, service = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or service is None:
        pytest.skip("chromium and chromedriver are not installed: they are packages of the system")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(service))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(finished: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a run, that of two, and that of a run with nothing but its configuration."""
    folder = tmp_path_factory.mktemp("pages")
    bare = folder / "bare"
    bare.mkdir()
    shutil.copy(finished[0] / "config.yaml", bare)
    other = Path(shutil.copytree(finished[0], folder / "other"))
    return {
        "single": write_page([finished[0]], folder / "single.html"),
        "several": write_page([finished[0], other], folder / "several.html"),
        "bare": write_page([bare]),
    }


@pytest.fixture
def keep() -> Path | None:
    """Where pictures of the pages are kept, if anywhere."""
    folder = os.environ.get(SCREENSHOTS)
    return None if folder is None else Path(folder)


def look(driver: Driver, page: Path, *, width: int, scheme: str) -> None:
    """Open a page on a screen of a width, px, in light or dark."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    driver.get(page.as_uri())


def requests(driver: Driver) -> list[str]:
    """The addresses that were asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


TOO_WIDE = """
return [...document.querySelectorAll("body, body *:not(svg *)")]
  .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5 && e.className !== "skip")
  .map(e => `${e.tagName} ${e.className} ${e.textContent.trim().slice(0, 40)}`);
"""


@pytest.mark.parametrize("name", ["single", "several", "bare"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_is_silent_and_fits_a_phone(
    name: str, scheme: str, driver: Driver, pages: dict[str, Path], keep: Path | None
) -> None:
    requests(driver)
    for width in (1280, 380):
        look(driver, pages[name], width=width, scheme=scheme)
        assert driver.execute_script("return innerWidth") == width
        assert driver.execute_script(TOO_WIDE) == []
        for element in driver.find_elements("css selector", "details"):
            driver.execute_script("arguments[0].open = true", element)
        assert driver.execute_script(TOO_WIDE) == []
        assert driver.execute_script("return document.body.scrollWidth") <= width
        if keep is not None:
            picture = {"format": "png", "captureBeyondViewport": True}
            shot = driver.execute_cdp_cmd("Page.captureScreenshot", picture)["data"]
            (keep / f"{name}_{scheme}_{width}.png").write_bytes(base64.b64decode(shot))
    asked = [url for url in requests(driver) if not url.startswith("data:")]
    assert set(asked) == {pages[name].as_uri()}
    assert driver.get_log("browser") == []


def test_links_lead_to_their_sections(driver: Driver, pages: dict[str, Path]) -> None:
    look(driver, pages["single"], width=380, scheme="light")
    links = driver.find_elements("css selector", "nav a")
    assert len(links) > 6
    for link in links:
        link.click()
        heading = driver.find_element("css selector", ":target")
        assert heading.tag_name == "h2"
        top = driver.execute_script("return arguments[0].getBoundingClientRect().top", heading)
        assert -1 < top < 900  # where it is rounded to a whole pixel


def test_what_is_folded_opens_by_mouse_and_keyboard(driver: Driver, pages: dict[str, Path]) -> None:
    look(driver, pages["single"], width=1280, scheme="light")
    details = driver.find_elements("css selector", "details")
    assert len(details) == 2
    for element, keys in zip(details, (None, "\ue007"), strict=True):  # the second by Enter
        summary = element.find_element("css selector", "summary")
        inside = element.find_element("css selector", "pre, table")
        assert not inside.is_displayed()
        summary.click() if keys is None else summary.send_keys(keys)
        assert inside.is_displayed()


def test_the_first_key_reaches_the_content(driver: Driver, pages: dict[str, Path]) -> None:
    look(driver, pages["single"], width=1280, scheme="light")
    driver.find_element("css selector", "body").send_keys("\ue004")  # Tab
    assert driver.switch_to.active_element.text == "Skip to the content"
    driver.switch_to.active_element.send_keys("\ue007")
    assert driver.find_element("css selector", ":target").tag_name == "main"
