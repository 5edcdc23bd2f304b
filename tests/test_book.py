"""The site: it builds without a warning, holds what a reader is promised, and works in a browser.

The tests of the second half drive Chromium or Chrome without a window. Without either they are
skipped. They open the pages from the disk, which allows less than a server does.
"""

import json
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
import torch

import maelib
from maelib.config import resolve
from maelib.measure import sampling
from maelib.model import build, initialise
from maelib.report import explorer as exported
from maelib.runs import pretrained

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
REPOSITORY = "https://github.com/someone/maelib"
MODELS = {"MAE": "mnist-mae-a1-b0.5", "VLAE": "mnist-vlae", "ResNet VAE": "mnist-vae"}
WIDTHS = (1280, 390)
# A page that is wider than the window, its formulas whose start is out of view, and those that are
# not typeset.
OVERFLOW = """() => {
  const page = document.documentElement;
  if (page.scrollWidth > page.clientWidth + 1) return [page.scrollWidth, page.clientWidth];
  const cut = [...document.querySelectorAll("div.math")].filter((f) => f.scrollLeft);
  return cut.length ? cut.map((f) => f.textContent) : null;
}"""
UNTYPESET = """async () => {
  await window.MathJax?.startup?.promise;
  const formulas = [...document.querySelectorAll(".math")];
  const good = (f) => f.querySelector("mjx-container") && !f.querySelector("[data-mjx-error]");
  return formulas.filter((f) => !good(f)).map((f) => f.textContent);
}"""
# Texts whose contrast with the background is too low (WCAG 2.1, 1.4.3).
FAINT = """() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const over = (top, under) => {
    const a = top[3] ?? 1;
    return [0, 1, 2].map((i) => a * top[i] + (1 - a) * under[i]);
  };
  const back = (e) => e
    ? over(parse(getComputedStyle(e).backgroundColor), back(e.parentElement))
    : [255, 255, 255];
  const light = (c) => c.slice(0, 3)
    .map((v) => ((v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const texts = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  const shown = [...document.querySelectorAll("article *:not(.headerlink)")]
    .filter((e) => e.offsetParent && texts(e));
  const ratio = (e) => {
    const under = back(e);
    const [a, b] = [light(over(parse(getComputedStyle(e).color), under)), light(under)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const faint = shown.filter((e) => ratio(e) < 4.5);
  return faint.map((e) => `${e.tagName}.${e.className}: ${e.textContent}`);
}"""


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the built site."""
    out = tmp_path_factory.mktemp("book")
    built = subprocess.run(
        [sys.executable, "book/build.py", "--out", str(out), "--repository", REPOSITORY],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return out / "site"


def read(path):
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("stem", NOTEBOOKS)
def test_notebook_page_says_where_it_runs_and_what_made_its_outputs(site, stem):
    page = read(site / "notebooks" / f"{stem}.html")
    assert f"lab/tree/{stem}.ipynb" in page
    assert f"colab.research.google.com/github/someone/maelib/blob/main/notebooks/{stem}" in page
    assert re.search(rf'href="\.\./_downloads/\w+/{stem}\.ipynb"', page)
    assert re.search(r"committed on \d{4}-\d\d-\d\d", page) or not (ROOT / ".git").exists()
    recorded = '"maelib": {' in read(ROOT / "notebooks" / f"{stem}.ipynb")
    made = r"made on \d{4}-\d\d-\d\d with Python [\d.]+ and PyTorch \S+ on "
    assert bool(re.search(made, page)) == recorded


def test_contents_are_in_the_order_of_the_course(site):
    sidebar = read(site / "index.html").partition('class="bd-links')[2].partition("</nav>")[0]
    pages = re.findall(r'href="([^"#]+)\.html"', sidebar)
    lessons = [f"notebooks/{stem}" for stem in NOTEBOOKS]
    guides = ["docs/data", "docs/clusters", "docs/reliability", "CONTRIBUTING"]
    order = [lessons[0], "docs/teaching", *lessons[1:], "pages/exercises"]
    order += ["docs/reproduction", "docs/zoo", "docs/benchmarks", *guides]
    order += ["api/index", "pages/glossary", "pages/bibliography"]
    assert [page for page in pages if page in order] == order


@pytest.mark.parametrize("number", range(1, 11))
def test_equation_can_be_linked(site, number):
    pages = [read(site / "notebooks" / f"{stem}.html") for stem in NOTEBOOKS]
    assert sum(f'id="eq-{number}"' in page and f"\\tag{{{number}}}" in page for page in pages) == 1


def test_theorem_exercises_and_sources_are_those_of_a_book(site):
    lesson = read(site / "notebooks" / "02_mutual_posterior_divergence.html")
    assert "proof theorem" in lesson
    assert 'href="#theorem-1"' in lesson
    assert re.search(r'class="[^"]*dropdown[^"]*solution|class="solution[^"]*dropdown', lesson)
    networks = read(site / "notebooks" / "03_networks.html")
    assert "Germain <em>et al.</em>" in networks
    assert 'href="../notebooks/02' in read(site / "pages" / "exercises.html")


def test_every_public_module_has_its_page(site):
    modules = {path.relative_to(ROOT) for path in (ROOT / "maelib").rglob("[!_]*.py")}
    names = {".".join(path.with_suffix("").parts) for path in modules}
    names = {name for name in names if ".internal" not in name}
    assert names <= {page.stem for page in (site / "api").glob("*.html")}


def test_links_lead_to_a_page_and_a_place_that_exist(site):
    paths = [path for path in site.rglob("*.html") if "_static" not in path.parts]
    pages = {path: read(path) for path in paths}
    places = {path: set(re.findall(r'\bid="([^"]+)"', pages[path])) for path in pages}
    dead = []
    for path, page in pages.items():
        for link in set(re.findall(r'<a\b[^>]*?\bhref="(?![a-z]+:)([^"]+)"', page)):
            name, place = urldefrag(unquote(unescape(link)))
            target = Path(os.path.normpath(path.parent / name)) if name else path
            if not target.exists() or place not in places.get(target, {place}) | {""}:
                dead.append((path.name, link))
    assert dead == []


def test_explorer_has_the_present_checkpoints(site):
    for stem in MODELS.values():
        found = pretrained.find(stem)
        packed = json.dumps(exported.packed(found.config, found.load()))
        assert packed in read(site / f"_static/explorer/{stem}.js")


def test_pages_load_nothing_from_another_host(site):
    loaded = re.compile(r'<(?:script|img|link|iframe|source)\b[^>]*\b(?:src|href)="(https?:[^"]+)')
    found = {page.name: loaded.findall(read(page)) for page in site.rglob("*.html")}
    assert {name: links for name, links in found.items() if links} == {}


@pytest.fixture
def open_page(site, chromium):
    """Opens a page of the site; what a reader should not meet is collected in ``troubles``."""
    contexts = []

    def open_page(name, width=WIDTHS[0], scheme="light"):
        contexts.append(
            chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        )
        page = contexts[-1].new_page()
        page.set_default_timeout(300_000)  # a busy machine is slow, not wrong
        page.troubles = []
        page.on("console", lambda m: m.type == "error" and page.troubles.append(m.text))
        page.on("pageerror", lambda error: page.troubles.append(str(error)))
        page.on("requestfailed", lambda request: page.troubles.append(request.url))
        page.on("request", lambda r: r.url.startswith("http") and page.troubles.append(r.url))
        page.goto((site / name).as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def explorer(open_page):
    """The explorer, ready for its reader."""
    page = open_page("pages/explorer.html")
    page.evaluate("explorer.ready")
    assert page.text_content("#explorer-status") == "Ready."
    return page


def ask(page, job, **rest):
    """What the explorer's worker answers, arrays as lists."""
    plain = "(key, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value)"
    script = f"([job, rest]) => explorer.ask(job, rest).then((v) => JSON.stringify(v, {plain}))"
    return json.loads(page.evaluate(script, [job, rest]))


def test_every_page_is_whole_in_a_browser(site, open_page):
    page, faults = open_page("index.html"), {}
    for path in sorted(set(site.rglob("*.html")) - set(site.rglob("_static/**/*.html"))):
        page.goto(path.as_uri())
        found = page.troubles + page.evaluate(UNTYPESET)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            found += [f"{width}: {wide}" for wide in [page.evaluate(OVERFLOW)] if wide]
        if found:
            faults[path.name] = found
        page.troubles = []
    assert faults == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_are_legible(scheme, site, open_page):
    page, faint = open_page("pages/explorer.html", scheme=scheme), {}
    page.evaluate("explorer.ready")
    assert page.get_attribute("html", "data-theme") == scheme
    faint["explorer"] = page.evaluate(FAINT)
    for folder in ("notebooks", "docs"):
        for path in sorted((site / folder).glob("*.html")):
            page.goto(path.as_uri(), wait_until="domcontentloaded")
            faint[path.name] = page.evaluate(FAINT)
    assert {name: texts for name, texts in faint.items() if texts} == {}


def agrees(page, model, name):
    """Whether a model in the browser and one in PyTorch give the same numbers and pixels."""
    x = (torch.rand(1, 1, 28, 28) > 0.8).float()
    uniform = torch.rand(1, 1, 28, 28)
    noise = torch.randn(1, model.prior.latent)
    numbers = {"atol": 1e-3, "rtol": 1e-3}
    with torch.no_grad():
        (mu, logvar), z = model.encode(x), model.prior.inverse(noise)
        output = model.decoder(z, x)
    theirs = ask(page, "encode", model=name, images=[x.flatten().tolist()])[0]
    torch.testing.assert_close(torch.tensor([theirs["mu"]]), mu, **numbers)
    torch.testing.assert_close(torch.tensor([theirs["logvar"]]), logvar, **numbers)
    code = ask(page, "prior", model=name, noise=noise[0].tolist())
    torch.testing.assert_close(torch.tensor([code]), z, **numbers)
    code, image = z[0].tolist(), x.flatten().tolist()
    found = torch.tensor(ask(page, "logits", model=name, code=code, image=image))
    torch.testing.assert_close(found, output.flatten(), **numbers)
    for temperature, numbers in ((1, uniform), (0, torch.full_like(uniform, 0.5))):
        item = {"model": name, "code": code, "temperature": temperature}
        item["uniform"] = uniform.flatten().tolist()
        drawn = ask(page, "draw", items=[item], pause=0)[0]
        assert drawn == sampling.decode(model.decoder, z, numbers).flatten().tolist()


def test_explorer_computes_what_torch_does(explorer):
    for name, file in MODELS.items():
        agrees(explorer, maelib.load(file), name)


def test_explorer_takes_every_size_from_the_model(explorer):
    sizes = {"latent": 5, "channels": 6, "encoder_channels": (3, 4, 5), "encoder_hidden": 7}
    for decoder in ("pixelcnn", "resnet"):
        config = resolve("quick", "mnist", decoder=decoder, flow_pairs=1, flow_hidden=9, **sizes)
        model = build(config.network).eval()
        initialise(model, (torch.rand(50, 1, 28, 28) > 0.8).float(), torch.randn(50, 5))
        packed = exported.packed(config, model)
        assert ask(explorer, "load", model=decoder, packed=packed)["latent"] == 5
        agrees(explorer, model, decoder)


def test_model_that_the_explorer_does_not_compute_is_named():
    config = resolve("quick", "mnist", z_path="skip")
    with pytest.raises(ValueError, match=r"z_path is 'skip'; the explorer knows only input\."):
        exported.packed(config, build(config.network))


def pictures(page):
    """The pixels of all pictures but the samples, by their names."""
    script = """() => {
      const all = [...document.querySelectorAll("canvas[aria-label]:not(.ex-samples *)")];
      const pixels = (c) => c.getContext("2d").getImageData(0, 0, 28, 28).data.join();
      return Object.fromEntries(all.map((c) => [c.ariaLabel, pixels(c)]));
    }"""
    return page.evaluate(script)


def test_swapped_codes_change_pixels_and_are_swapped_back(explorer):
    before = pictures(explorer)
    explorer.focus("#ex-swap")
    explorer.keyboard.press("Enter")
    explorer.wait_for_function("document.querySelector('.ex-changes').textContent !== '–'")
    after = pictures(explorer)
    for model in MODELS:
        assert before[f"Picture 1 of {model}"] != after[f"Picture 1 of {model}"]
    assert "Pixels that the swap changed" in explorer.text_content("#explorer-status")
    explorer.keyboard.press("Enter")
    explorer.wait_for_function("document.querySelector('#ex-swap').ariaPressed === 'false'")
    explorer.evaluate("explorer.settled()")
    assert pictures(explorer) == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_widget_is_the_explorer_with_the_models_that_it_is_given(scheme, chromium, digits):
    config = resolve("smoke", "digits", "mae")
    widget = exported.widget({"mine": (config, build(config.network).eval())}, digits)
    context = chromium.new_context(color_scheme=scheme, offline=True)
    page = context.new_page()
    page.set_default_timeout(300_000)
    page.set_content(widget.value)
    frame = page.frames[1]
    frame.evaluate("explorer.ready")
    assert frame.text_content("#explorer-status") == "Ready."
    assert "mae" in frame.text_content("#explorer-models")
    before = pictures(frame)
    frame.get_by_role("button", name="New noise").click()
    frame.evaluate("explorer.settled()")
    assert pictures(frame)["Picture 1 of mine"] != before["Picture 1 of mine"]
    assert frame.locator(".ex-map ellipse").count() == exported.DIGITS
    assert frame.evaluate(FAINT.replace("article", "body")) == []
    context.close()
    widget.close()


def test_explorer_is_used_by_keyboard(explorer):
    explorer.focus("[name=ex-digit-0]:checked")
    explorer.keyboard.press("ArrowRight")
    explorer.wait_for_function(
        "document.querySelector('#explorer-status').textContent.startsWith('Digit 1 is')"
    )
    drawing = explorer.locator(".ex-pad")
    drawing.focus()
    for key in ("Space", "ArrowDown", "Space", "ArrowDown", "Space"):
        explorer.keyboard.press(key)
    explorer.get_by_role("button", name="Use the drawing").press("Enter")
    explorer.evaluate("explorer.settled()")
    assert sum(explorer.evaluate("Array.from(explorer.state.chosen[0])")) == 3
    explorer.locator(".ex-map").focus()
    for key in ("ArrowRight", "Enter"):
        explorer.keyboard.press(key)
    explorer.evaluate("explorer.settled()")
    assert sum(explorer.evaluate("Array.from(explorer.state.chosen[0])")) > 3
    explorer.get_by_role("slider", name="From digit 1").press("End")
    explorer.get_by_role("button", name="Draw samples").press("Enter")
    explorer.wait_for_function(
        "document.querySelector('#explorer-status').textContent.includes('new samples')"
    )
    assert explorer.troubles == []


def test_walk_and_temperature_change_the_pictures(explorer):
    walked = "The picture of the code that the sliders set"
    explorer.evaluate("explorer.settled()")
    at_one = pictures(explorer)[walked]
    explorer.get_by_role("slider", name="From digit 1").press("End")
    explorer.evaluate("explorer.settled()")
    at_two = pictures(explorer)[walked]
    assert at_two != at_one
    explorer.get_by_role("slider", name="Dimension").first.press("End")
    explorer.evaluate("explorer.settled()")
    assert pictures(explorer)[walked] != at_two
    explorer.get_by_role("slider", name="Temperature").press("Home")
    explorer.evaluate("explorer.settled()")
    greedy = pictures(explorer)
    explorer.get_by_role("button", name="New noise").press("Enter")
    explorer.evaluate("explorer.settled()")
    assert pictures(explorer) == greedy


def test_explorer_names_everything_for_a_screen_reader(explorer):
    unnamed = """() => {
      const all = document.querySelectorAll(".explorer :is(input, select, button, canvas, svg)");
      const name = (e) => e.ariaLabel || e.labels?.[0]?.textContent.trim() || e.textContent.trim();
      return [...all].filter((e) => !name(e) && e.ariaHidden !== "true").map((e) => e.outerHTML);
    }"""
    assert explorer.evaluate(unnamed) == []
