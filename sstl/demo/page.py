"""The page itself, in gradio: its parts, what they do, and a server that speaks to nobody else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from types import ModuleType
from typing import Any

from sstl.data.images import IMAGE_SUFFIXES
from sstl.demo.work import ADAPTED, Desk, View
from sstl.errors import SstlError
from sstl.restore.clip import VIDEO_SUFFIXES

# The browser loads nothing from elsewhere, whatever gradio or a file's name puts into the page.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'self'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_INTRODUCTION = """# Remove rain from photos
Drop photos or a short clip, then press *Derain*. If rain is left, press *Adapt*: the network learns the rain of
your photos, without knowing how they look dry. Nothing leaves this server; your files are
removed within two hours after you close the page."""
_CSS = """
footer, .share-button { display: none !important; }
#comparison iframe { width: 100%; height: 34rem; border: 0; border-radius: 8px; display: block; }
#status progress { width: 100%; height: .6rem; appearance: none; border: 0; border-radius: 99px; overflow: hidden; }
#status progress, #status progress::-webkit-progress-bar { background: var(--border-color-primary); }
#status progress::-webkit-progress-value { background: var(--primary-700); }
#status progress::-moz-progress-bar { background: var(--primary-700); }
#status p { margin: 0; min-height: 1.6em; font-size: 1.05rem; }
#status .html-container, #comparison .html-container { padding: 0; }
:focus-visible { outline: 2px solid var(--primary-600) !important; outline-offset: 2px; }
#steps :focus-visible { outline-offset: -2px; }
#weights:not(:focus-within) [role=listbox] { display: none; }
.gradio-container { max-width: 76rem !important; }
"""
# Screen readers read out what is said in a region that was live before. gradio leaves its ornaments without a name, and
# gives a button the key of a name that it does not have.
_SCRIPT = """() => {
  const status = document.getElementById('status');
  status.setAttribute('role', 'status');
  status.setAttribute('aria-live', 'polite');
  document.documentElement.lang = 'en';
  const name = () => {
    for (const icon of document.querySelectorAll('svg:not([aria-hidden])')) icon.setAttribute('aria-hidden', 'true');
    const add = document.querySelector('[aria-label="common.upload"]');
    if (add) add.ariaLabel = add.title = 'Add files';
  };
  new MutationObserver(name).observe(document.body, {childList: true, subtree: true});
  name();
}"""
_INSIDE = (
    "body > header, footer, section > h2 { display: none } "
    "body, main { padding: 0 !important; margin: 0; background: transparent }"
)
_GROW = (
    "const inside=this.contentDocument.documentElement;"
    "new ResizeObserver(()=>{this.style.height=inside.getBoundingClientRect().height+8+'px'}).observe(inside)"
)


def import_gradio() -> ModuleType:
    """Import gradio with its reports and look-ups switched off; SstlError with the remedy if it is not installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import gradio
    except ImportError:
        raise SstlError("the web page needs gradio; install it by: pip install gradio") from None
    return gradio  # type: ignore[no-any-return]  # it is not followed by mypy


def build(desk: Desk) -> Any:
    """Return the page as gradio's Blocks; nothing is served yet."""
    gr = import_gradio()
    limits = desk.limits
    with gr.Blocks(title="sstl: remove rain", analytics_enabled=False, delete_cache=(3600, 3600)) as blocks:
        gr.Markdown(
            f"{_INTRODUCTION}\nAt most {limits.files} files of {limits.bytes / 1e6:.0f} MB, photos of "
            f"{limits.pixels / 1e6:.3g} megapixels, clips of {limits.clip_seconds:.0f} seconds."
        )
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                files = gr.File(
                    label="Photos or a clip",
                    file_count="multiple",
                    file_types=sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES),
                    height=180,
                    elem_id="files",
                )
                weights = gr.Dropdown(
                    [*desk.weights],
                    value=next(iter(desk.weights)),
                    label="Weights",
                    filterable=False,
                    elem_id="weights",
                )
                derain = gr.Button("Derain", variant="primary", elem_id="derain")
                steps = gr.Slider(
                    min(20, limits.steps - 1),
                    limits.steps,
                    value=min(60, limits.steps),
                    step=1,
                    label="Steps of adaptation",
                    elem_id="steps",
                )
                with gr.Row():
                    adapt = gr.Button("Adapt", elem_id="adapt", min_width=100)
                    stop = gr.Button("Stop", elem_id="stop", min_width=100)
            with gr.Column(scale=3, min_width=320):
                status = gr.HTML(_status(View("Ready.")), elem_id="status")
                comparison = gr.HTML(elem_id="comparison")
                video = gr.Video(label="The clip without rain", visible=False, elem_id="clip", buttons=["download"])
                archive = gr.DownloadButton("Download all", visible=False, elem_id="download")
        shown = [status, comparison, video, archive, weights]

        def update(view: View) -> list[Any]:
            return [
                gr.skip() if view.status is None else _status(view),
                gr.skip() if view.page is None else _frame(view.page),
                gr.skip() if view.page is None else gr.Video(value=_text(view.video), visible=view.video is not None),
                gr.skip() if view.archive is None else gr.DownloadButton(value=_text(view.archive), visible=True),
                gr.Dropdown(choices=[ADAPTED, *desk.weights], value=ADAPTED) if view.adapted else gr.skip(),
            ]

        def on_derain(dropped: list[str] | None, name: str, request: Any) -> Iterator[list[Any]]:
            yield from map(update, desk.derain(_user(request), dropped or [], name))

        def on_adapt(dropped: list[str] | None, name: str, count: int, request: Any) -> Iterator[list[Any]]:
            yield from map(update, desk.adapt(_user(request), dropped or [], name, count))

        def on_stop(request: Any) -> None:
            desk.stop(_user(request))

        def on_leave(request: Any) -> None:
            desk.forget(_user(request))

        for handler in (on_derain, on_adapt, on_stop, on_leave):  # gradio passes the request where this type stands
            handler.__annotations__ = {"request": gr.Request}
        # The desk has a line of its own: gradio's does not say in the page that one waits, and a press of a button
        # is lost while gradio cancels.
        work = {
            "outputs": shown,
            "trigger_mode": "multiple",  # the desk knows when one has ended, the browser a little later
            "concurrency_limit": None,
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        derain.click(on_derain, [files, weights], **work)
        adapt.click(on_adapt, [files, weights, steps], **work)
        stop.click(on_stop, queue=False, api_visibility="private")
        blocks.unload(on_leave)
    return blocks


def serve(
    desk: Desk, port: int | None = None, on_start: Callable[[str], None] | None = None, block: bool = True
) -> Any:
    """Serve the page on 127.0.0.1; return gradio's Blocks, which ``close()``.

    Files are given out only if they lie in the desk's folder, and a user was given their names.

    Args:
        desk: does the work.
        port: 0 or None for any free one.
        on_start: told the address.
        block: whether to return only when Ctrl-C ends it.

    Raises:
        SstlError: gradio is not installed, or the port cannot be used.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(desk.folder / "gradio")
    gr = import_gradio()
    blocks = build(desk)
    try:
        _, address, _ = blocks.launch(
            server_name="127.0.0.1",
            server_port=port or _free_port(),
            share=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            run_history=False,
            enable_monitoring=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=desk.limits.bytes,
            footer_links=[],
            theme=_theme(gr),
            css=_CSS,
            js=_SCRIPT,
            app_kwargs={"middleware": [_middleware()]},
        )
    except OSError as error:
        raise SstlError(f"port {port} of 127.0.0.1 cannot be used ({error}); give another one by --port.") from None
    if on_start is not None:
        on_start(address)
    if block:
        blocks.block_thread()
    return blocks


def _theme(gr: ModuleType) -> Any:
    # gradio's own fonts are fetched from elsewhere, and white on its orange is hard to read.
    theme = gr.themes.Default(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["monospace"])
    fill = {f"button_primary_background_fill{kind}": "*primary_700" for kind in ("", "_dark")}
    hover = {f"button_primary_background_fill_hover{kind}": "*primary_800" for kind in ("", "_dark")}
    return theme.set(**fill, **hover)


def _middleware() -> Any:
    from starlette.middleware import Middleware

    class Headers:
        """Adds the headers to each answer."""

        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def with_headers(message: dict[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [
                        *message.get("headers", []),
                        *((name.lower().encode(), value.encode()) for name, value in _HEADERS.items()),
                    ]
                await send(message)

            await self.app(scope, receive, with_headers)

    return Middleware(Headers)


def _free_port() -> int:
    import socket

    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def _user(request: Any) -> str:
    """Name the user's folder; what the browser says is hashed, because it could say anything."""
    return hashlib.sha256(str(request.session_hash).encode()).hexdigest()[:32]


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _status(view: View) -> str:
    bar = "" if view.share is None else f'<progress max="1" value="{view.share:.3f}" aria-label="Progress"></progress>'
    return f"<p>{escape(view.status or '')}</p>{bar}"


def _frame(page: str) -> str:
    """The comparison is a page of its own, with its own script and policy, that is as high as it needs."""
    inside = page.replace("</head>", f"<style>{_INSIDE}</style></head>", 1)
    return (
        f'<iframe title="Before and after" scrolling="no" onload="{escape(_GROW)}" srcdoc="{escape(inside)}"></iframe>'
    )


def main(weights: Sequence[str], port: int | None, on_start: Callable[[str], None]) -> None:
    """Serve until Ctrl-C, with a temporary folder that is removed afterwards."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="sstl-demo-", ignore_cleanup_errors=True) as folder:
        desk = Desk(Path(folder), weights)
        try:
            serve(desk, port, on_start)
        finally:
            desk.close()
