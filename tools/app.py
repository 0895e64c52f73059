"""A local page: choose a picture, and see its CAM, prior, mask and box.

    pip install gradio
    python tools/app.py                    with the checkpoints of demo.sh; then open the address

The slider changes the threshold without another forward pass. The page is served to this machine
alone (127.0.0.1). Files of more than 20 MB, and those that cannot be read as images, are refused.
"""

import os
import sys
from functools import lru_cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import ROOT, Parser, positive_int
from utils.errors import InputError, run
from utils.outputs.results import newest_checkpoint

LARGEST_FILE = '20mb'
STAGES = ('cls', 'cam', 'seg')
BEST_CLASS = 'the best class'


def main():
    parser = Parser(__doc__)
    parser.add_argument('--port', type=positive_int, default=7860, help='on 127.0.0.1')
    parser.add_argument('--device', default='auto', help='auto | cpu | cuda | cuda:N')
    args = parser.parse_args()
    blocks = page(args.device)
    print(f'open http://127.0.0.1:{args.port} (Ctrl-C stops the server)', flush=True)
    try:
        blocks.launch(server_name='127.0.0.1', server_port=args.port, quiet=True,
                      max_file_size=LARGEST_FILE, share=False)
    except OSError as error:
        raise InputError(f'--port {args.port} cannot be used: choose another ({error})') from error


def page(device: str):
    """The page, a gradio.Blocks."""
    os.environ.setdefault('GRADIO_ANALYTICS_ENABLED', 'False')
    try:
        import gradio as gr
    except ImportError as error:
        raise InputError('the page needs Gradio: pip install gradio') from error

    from utils.data.images import MAX_PIXELS, BadImageError

    names = runs()
    model = lru_cache(maxsize=2)(lambda name: load(name, device))
    with gr.Blocks(title='SPOL') as blocks:
        gr.Markdown('# SPOL: box and segment an object, learned from image labels alone')
        with gr.Row():
            file = gr.File(label='picture', file_count='single', height=120)
            with gr.Column():
                checkpoint = gr.Dropdown(names, value=names[0], label='checkpoints')
                label = gr.Dropdown([BEST_CLASS, *model(names[0]).class_names], value=BEST_CLASS,
                                    label='class of the CAM')
                threshold = gr.Slider(0, 0.99, model(names[0]).threshold, step=0.01,
                                      label='threshold')
        views = gr.Image(show_label=False, interactive=False, format='png',
                         buttons=['download', 'fullscreen'])
        text = gr.Textbox(label='box and classes', interactive=False, lines=3)
        prediction = gr.State()

        def predict(path, name, chosen, value):
            if path is None:
                return None, None, ''
            try:
                found = model(name)(path, label_of(model(name), chosen))
            except BadImageError:
                message = (f'{Path(path).name} cannot be read as an image: it is damaged, cut off, '
                           f'or has more than {MAX_PIXELS // 10**6} million pixels')
                gr.Warning(message)
                return None, None, message
            return found, *show(found, value)

        def change_checkpoint(name):
            return gr.Dropdown([BEST_CLASS, *model(name).class_names], value=BEST_CLASS)

        inputs, outputs = [file, checkpoint, label, threshold], [prediction, views, text]
        file.change(predict, inputs, outputs)
        label.input(predict, inputs, outputs)
        checkpoint.input(change_checkpoint, checkpoint, label).then(predict, inputs, outputs)
        threshold.change(show, [prediction, threshold], [views, text], show_progress='hidden')
    return blocks


def runs() -> list[str]:
    """The runs of the stages that have checkpoints: the folders in cub200-*/out/."""
    found = sorted({model.parent.name for stage in STAGES[1:]
                    for model in ROOT.glob(f'cub200-{stage}/out/*/model-*')})
    if not found:
        raise InputError('no checkpoints in cub200-*/out/: run demo.sh first')
    return found


def load(name: str, device: str):
    """The networks of a run, each one's newest checkpoint."""
    from spol import load_spol

    models = {stage: newest_checkpoint(ROOT / f'cub200-{stage}' / 'out' / name)
              for stage in STAGES}
    return load_spol(**models, device=device)


def label_of(model, name: str) -> int | None:
    return None if name == BEST_CLASS else model.class_names.index(name)


def show(prediction, threshold: float) -> tuple:
    """The picture of the views, and the box and classes as text, at a threshold."""
    if prediction is None:
        return None, ''
    found = prediction.at(threshold)
    box = 'no box' if found.box is None else ', '.join(f'{value:.0f}' for value in found.box)
    classes = '\n'.join(f'{name}: {score:.1%}' for name, score in found.classes[:2])
    return found.draw(), f'box (x0, y0, x1, y1): {box}\n{classes}'


if __name__ == '__main__':
    run(main)
