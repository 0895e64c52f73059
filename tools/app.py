"""A local page: choose a picture, and see its CAM, prior, mask and box.

    pip install gradio
    python tools/app.py                    with demo.sh's checkpoints; then open the address
    python tools/app.py --seg model-8      with your own checkpoints: --cls, --cam, --seg

The slider changes the threshold without another forward pass. The page is served to this machine
alone (127.0.0.1). Files of more than 20 MB, and those that cannot be read as images, are refused.
"""

import atexit
import os
import shutil
import sys
import tempfile
from argparse import ArgumentTypeError
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'dataset')]

from utils.arguments import NETWORKS, Parser, add_checkpoints, positive_int
from utils.errors import InputError, run
from utils.outputs.results import newest_checkpoint

LARGEST_FILE = '20mb'
BEST_CLASS = 'the best class'
LARGE = 1200      # pixels; the side of the large picture
EXAMPLES = 4
GIVEN = 'those of the command line'
VIEWS = {
    'fused CAM': 'how much each place speaks for the class, from shallow × deep features',
    'Gaussian prior': "Gaussians fitted to the CAM's weak regions, which often still are the "
                      'object',
    'probability': "the segmentation network's probability of foreground, for any class",
    'mask': 'where the probability (without a segmentation network, the CAM) exceeds the threshold',
    'box': 'around the largest part of the mask',
}
DRAWN = ('\n\nThese networks were trained on drawn birds: their classes mean nothing on '
         'photographs.')


def main():
    parser = Parser(__doc__)
    add_checkpoints(parser)
    parser.add_argument('--port', type=port, default=7860, help='on 127.0.0.1')
    args = parser.parse_args()
    given = {stage: getattr(args, stage) for stage in NETWORKS}
    settings = {name: getattr(args, name) for name in ('backbone', 'arch', 'threshold', 'device')}
    blocks = page({GIVEN: given} if any(given.values()) else runs(), settings)
    print(f'open http://127.0.0.1:{args.port} (Ctrl-C stops the server)', flush=True)
    try:
        blocks.launch(server_name='127.0.0.1', server_port=args.port, quiet=True,
                      max_file_size=LARGEST_FILE, share=False)
    except OSError as error:
        raise InputError(f'--port {args.port} cannot be used: choose another ({error})') from error


def port(text: str) -> int:
    number = positive_int(text)
    if number > 65535:
        raise ArgumentTypeError(f'{text} is not a port: give 1 to 65535')
    return number


def page(checkpoints: dict[str, dict], settings: dict):
    """The page, a gradio.Blocks; `checkpoints`: those of each choice by their stages, `settings`:
    parameters of `load_spol`."""
    os.environ.setdefault('GRADIO_ANALYTICS_ENABLED', 'False')
    try:
        import gradio as gr
    except ImportError as error:
        raise InputError('the page needs Gradio: pip install gradio') from error

    model = lru_cache(maxsize=2)(lambda name: load(checkpoints[name], settings))
    first = next(iter(checkpoints))
    with gr.Blocks(title='SPOL') as blocks:
        gr.Markdown('# SPOL: box and segment an object, learned from image labels alone'
                    + DRAWN * model(first).settings['drawn'])
        with gr.Row():
            with gr.Column():
                file = gr.File(label='picture', file_count='single', height=120)
                examples = gr.Dataset(components=[gr.Image(visible=False)], samples=drawn_birds(),
                                      label='examples: drawn birds', type='index')
            with gr.Column():
                checkpoint = gr.Dropdown(list(checkpoints), value=first, label='checkpoints',
                                         info=repr(model(first)))
                label = gr.Dropdown(choices(model(first)), value=BEST_CLASS,
                                    label='class of the CAM')
                threshold = gr.Slider(0, 0.99, model(first).threshold, step=0.01,
                                      label='threshold')
        large = gr.Image(show_label=False, interactive=False, format='png', buttons=['download'])
        text = gr.Textbox(label='box and classes', interactive=False, lines=3)
        with gr.Row():  # on narrow pages several rows
            views = [gr.Image(label=name, interactive=False, format='png', buttons=[],
                              min_width=150) for name in VIEWS]
        gr.Markdown('\n'.join(f'- **{name}**: {text}' for name, text in VIEWS.items()))
        found, shown = gr.State(), [text, large, *views]

        def update(path, name, *chosen):
            return predict(model(name), path, *chosen)

        inputs, outputs = [file, checkpoint, label, threshold], [found, *shown]
        file.change(update, inputs, outputs)
        examples.click(lambda index: examples.raw_samples[index][0], examples, file)
        label.input(update, inputs, outputs)
        checkpoint.input(
            lambda name: (gr.Dropdown(info=repr(model(name))),
                          gr.Dropdown(choices(model(name)), value=BEST_CLASS)),
            checkpoint, [checkpoint, label]).then(update, inputs, outputs)
        threshold.change(show, [found, threshold], shown, show_progress='hidden')
    return blocks


def choices(model) -> list[str]:
    return [BEST_CLASS, *model.class_names]


def predict(model, path: str | None, label: str, threshold: float) -> tuple:
    """The prediction, and what `show` returns; in its place what is wrong with the picture."""
    if path is None:
        return None, *show(None, threshold)
    try:
        found = model(path, None if label == BEST_CLASS else label)
    except InputError as error:
        nothing = show(None, threshold)[1:]
        return None, str(error).replace(path, Path(path).name), *nothing
    return found, *show(found, threshold)


def runs() -> dict[str, dict[str, Path | None]]:
    """The newest checkpoint of each stage of the runs in cub200-*/out/, by the runs' names."""
    names = sorted({model.parent.name for stage in NETWORKS[1:]
                    for model in ROOT.glob(f'cub200-{stage}/out/*/model-*')})
    if not names:
        raise InputError('no checkpoints in cub200-*/out/: run demo.sh first, or give --cls, --cam '
                         'or --seg')
    return {name: {stage: newest_checkpoint(ROOT / f'cub200-{stage}' / 'out' / name)
                   for stage in NETWORKS} for name in names}


def load(checkpoints: dict[str, Path | None], settings: dict):
    from spol import load_spol

    model = load_spol(**checkpoints, **settings)
    print(model, flush=True)
    return model


def drawn_birds() -> list[list[str]]:
    """Images as those of make_mini.py's validation set, in a folder of their own."""
    from mini_layouts import write_image
    from mini_sources import DrawnSource, make_samples

    folder = Path(tempfile.mkdtemp(prefix='spol-'))
    atexit.register(shutil.rmtree, folder)
    samples = make_samples(DrawnSource(EXAMPLES, 256, 0), (0, 1), 256, 0, pair_share=0)
    paths = []
    for sample in samples:
        paths.append(folder / f'bird-{sample.label}.jpg')
        write_image(paths[-1], sample.image)
    return [[str(path)] for path in paths]


def show(prediction, threshold: float) -> tuple:
    """The box and classes as text, the large picture and the views, at a threshold."""
    if prediction is None:
        return '', *[None] * (1 + len(VIEWS))
    found = prediction.at(threshold)
    box = 'no box' if found.box is None else ', '.join(f'{value:.0f}' for value in found.box)
    asked = f'{found.asked[0]}: {found.asked[1]:.1%} (asked for)\n' if found.asked else ''
    classes = '\n'.join(f'{name}: {score:.1%}' for name, score in found.classes[:2])
    return (f'box (x0, y0, x1, y1): {box}\n{asked}{classes}', found.within(LARGE).overlay(),
            *map(found.views().get, VIEWS))


if __name__ == '__main__':
    run(main)
