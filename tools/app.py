"""A local page: choose a picture, and see its CAM, prior, mask and box.

    pip install gradio
    python tools/app.py                    with the networks in resource/birds
    python tools/app.py --seg model-8      with others, by the flags of tools/predict.py

The page is served to this machine alone (127.0.0.1), and takes files of at most 20 MB.
"""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.predict import add_networks, networks, views
from utils.arguments import ROOT, Parser
from utils.errors import InputError, run

BEST_CLASS = 'the best class'
LARGE = 1200  # pixels; the side of the large picture
VIEWS = {
    'fused CAM': 'how much each place speaks for the class, from shallow × deep features',
    'Gaussian prior': "Gaussians fitted to the CAM's weak regions, often still the object",
    'probability': "the segmentation network's probability of foreground, for any class",
    'mask': 'where the probability (without a segmentation network, the CAM) exceeds the threshold',
    'box': 'around the largest part of the mask',
}


def main() -> None:
    parser = Parser(__doc__)
    add_networks(parser)
    args = parser.parse_args()
    from spol import load_spol

    blocks = page(load_spol(**networks(args)))
    blocks.launch(server_name='127.0.0.1', max_file_size='20mb', share=False)


def page(model: Any) -> Any:
    """A gradio.Blocks."""
    os.environ.setdefault('GRADIO_ANALYTICS_ENABLED', 'False')
    try:
        import gradio as gr
    except ImportError as error:
        raise InputError('the page needs Gradio: pip install gradio') from error

    pictures = [[str(path)] for path in sorted((ROOT / 'resource' / 'examples').glob('*.jpg'))]
    with gr.Blocks(title='SPOL') as blocks:
        gr.Markdown('# SPOL: box and segment an object, learned from image labels alone\n'
                    f'`{model}`')
        with gr.Row():
            with gr.Column():
                file = gr.File(label='picture', file_count='single', height=120)
                examples = gr.Dataset(components=[gr.Image(visible=False)], samples=pictures,
                                      label='examples', type='index')
            with gr.Column():
                label = gr.Dropdown([BEST_CLASS, *model.class_names], value=BEST_CLASS,
                                    label='class of the CAM')
                threshold = gr.Slider(0, 0.9999, model.threshold, step=0.0001, label='threshold')
        large = gr.Image(show_label=False, interactive=False, format='png', buttons=['download'])
        text = gr.Textbox(label='box and classes', interactive=False, lines=3)
        with gr.Row():  # on narrow pages several rows
            small = [gr.Image(label=name, interactive=False, format='png', buttons=[],
                              min_width=150) for name in VIEWS]
        gr.Markdown('\n'.join(f'- **{name}**: {text}' for name, text in VIEWS.items()))
        found, shown = gr.State(), [text, large, *small]
        update = partial(predict, model)
        inputs, outputs = [file, label, threshold], [found, *shown]
        file.change(update, inputs, outputs)
        examples.click(lambda index: pictures[index][0], examples, file)
        label.input(update, inputs, outputs)
        threshold.change(show, [found, threshold], shown, show_progress='hidden')
    return blocks


def predict(model: Any, path: str | None, label: str, threshold: float) -> tuple:
    found, wrong = None, ''
    try:
        if path is not None:
            found = model(path, None if label == BEST_CLASS else label)
    except InputError as error:
        wrong = str(error).replace(path, Path(path).name)
    text, *pictures = show(found, threshold)
    return found, wrong or text, *pictures


def show(prediction: Any, threshold: float) -> tuple:
    """The text, the large picture and the views at a threshold."""
    if prediction is None:
        return '', *[None] * (1 + len(VIEWS))
    found = prediction.at(threshold)
    box = 'no box' if found.box is None else (
        ', '.join(f'{value:.0f}' for value in found.box) + f'; score {found.score:.2f}')
    asked = f'{found.asked[0]}: {found.asked[1]:.1%} (asked for)\n' if found.asked else ''
    best = '\n'.join(f'{name}: {score:.1%}' for name, score in found.classes[:2])
    return (f'box (x0, y0, x1, y1): {box}\n{asked}{best}', found.within(LARGE).overlay(),
            *map(views(found).get, VIEWS))


if __name__ == '__main__':
    run(main)
