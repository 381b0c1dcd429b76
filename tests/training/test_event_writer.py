"""TensorBoard's events, read back as TensorBoard reads them."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata as hparams

from purenoise_jax.training.event_writer import FOLDER, EventWriter, Facts

FACTS = Facts(
    {
        "data.augment": ["flip", "crop"],
        "dtype": "float32",
        "model.norm": "bn",
        "optimizer.learning_rate": 0.1,
        "phases.initial.methods": ["erm"],
        "phases.initial.start_epoch": 0,
        "seed": 3,
    },
    ("cat", "sea lion", "a|b"),
    {"train": [1200, 30, 4], "test": [10, 10, 0]},
)


def read(workdir):
    return EventAccumulator(str(workdir / FOLDER), size_guidance={"tensors": 0}).Reload()


def write(workdir, facts, record, *, step=0, finish=True):
    writer = EventWriter(workdir, step, facts)
    writer.write(step + 5, record)
    if finish:
        writer.finish()
    writer.close()
    return read(workdir)


def session(events, tag):
    content = events.SummaryMetadata(tag).plugin_data.content
    parse = {
        hparams.EXPERIMENT_TAG: hparams.parse_experiment_plugin_data,
        hparams.SESSION_START_INFO_TAG: hparams.parse_session_start_info_plugin_data,
        hparams.SESSION_END_INFO_TAG: hparams.parse_session_end_info_plugin_data,
    }
    return parse[tag](content)


def test_the_fields_of_a_run_are_its_hyper_parameters(tmp_path):
    events = write(tmp_path, FACTS, {"train/loss": 1.5})
    started = session(events, hparams.SESSION_START_INFO_TAG)
    values = {
        name: getattr(value, value.WhichOneof("kind")) for name, value in started.hparams.items()
    }
    texts = {"data.augment": "flip, crop", "phases.initial.methods": "erm"}
    assert values == {**FACTS.fields, **texts}
    experiment = session(events, hparams.EXPERIMENT_TAG)
    assert [info.name for info in experiment.hparam_infos] == [
        "phases.initial.methods", "model.norm", "seed", "optimizer.learning_rate",
        "data.augment", "dtype", "phases.initial.start_epoch",
    ]  # fmt: skip
    measures = [info.name.tag for info in experiment.metric_infos]
    assert measures == ["test/accuracy", "test/balanced_accuracy"]
    # 1 is success.
    assert session(events, hparams.SESSION_END_INFO_TAG).status == 1


def test_a_run_that_has_not_finished_has_no_end(tmp_path):
    events = write(tmp_path, FACTS, {"train/loss": 1.5}, finish=False)
    tags = events.PluginTagToContent("hparams")
    assert set(tags) == {hparams.EXPERIMENT_TAG, hparams.SESSION_START_INFO_TAG}


def test_each_class_has_a_curve_unless_it_has_no_images(tmp_path):
    record = {"test/accuracy": 0.6, "test/per_class_accuracy": [0.9, 0.3, None]}
    events = write(tmp_path, FACTS, record)
    assert events.Tags()["scalars"] == [
        "test/accuracy", "test_by_class/0_cat", "test_by_class/1_sea_lion",
    ]  # fmt: skip
    (point,) = events.Scalars("test_by_class/1_sea_lion")
    assert (point.step, point.value) == (5, pytest.approx(0.3))


def test_one_chart_has_all_classes(tmp_path):
    events = write(tmp_path, FACTS, {"test/per_class_accuracy": [0.9, 0.3, None]})
    layout = layout_pb2.Layout()
    (tensor,) = events.Tensors("custom_scalars__config__")
    layout.ParseFromString(tensor.tensor_proto.string_val[0])
    (category,) = layout.category
    (chart,) = category.chart
    assert chart.title == "test" and list(chart.multiline.tag) == ["^test_by_class/"]


def test_the_images_of_the_classes_are_a_table(tmp_path):
    events = write(tmp_path, FACTS, {"train/loss": 1.5})
    (tensor,) = events.Tensors("classes/text_summary")
    assert tensor.tensor_proto.string_val[0].decode().splitlines() == [
        "| | class | train | test |",
        "|---:|---|---:|---:|",
        "| 0 | cat | 1,200 | 10 |",
        "| 1 | sea lion | 30 | 10 |",
        "| 2 | a&#124;b | 4 | 0 |",
    ]


def test_more_than_a_hundred_classes_are_a_histogram(tmp_path):
    many = Facts({}, [str(c) for c in range(101)], {"train": [5] * 101, "val": [2] * 101})
    events = write(tmp_path, many, {"val/per_class_accuracy": [0.5] * 100 + [None]})
    assert events.Tags()["scalars"] == []
    (point,) = events.Histograms("val_by_class/accuracy")
    assert point.histogram_value.num == 100 and point.histogram_value.sum == pytest.approx(50)
    assert "custom_scalars__config__" not in events.Tags()["tensors"]


def test_a_continued_run_forgets_what_came_later_and_keeps_its_fields(tmp_path):
    write(tmp_path, FACTS, {"test/per_class_accuracy": [0.1, 0.2, 0.3]}, step=5, finish=False)
    # The file's name has seconds only.
    (file,) = (tmp_path / FOLDER).iterdir()
    file.rename(file.with_name("events.out.tfevents.0000000001.host"))
    record = {"test/per_class_accuracy": [0.7, 0.8, 0.9]}
    events = write(tmp_path, FACTS, record, step=5)
    points = events.Scalars("test_by_class/0_cat")
    assert [(point.step, point.value) for point in points] == [(10, pytest.approx(0.7))]
    assert session(events, hparams.SESSION_START_INFO_TAG).hparams["seed"].number_value == 3
