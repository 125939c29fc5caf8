"""Every name of Keras and TensorFlow that Heliostat uses although nobody promised it, and the check that it is there.

A trained step has no public way to keep Keras from dividing losses by the number of replicas, to call an optimizer as
a pure function, or to know which seeds a model draws from. Parts that do this have moved before, and some are read with
a default: without `_seed_generators` workers would draw other random numbers, and nothing would say so. So all of them
stand in one table, and `check_private_names` looks for each before anything is built on them: first of all in a
worker, and in the driver once it is given callbacks. `private_api` is the only module that uses them.

The check looks at code and makes no objects: a layer made here would count up the names of the user's layers, a
variable would start TensorFlow before its threads are set. What only objects have counts as there if a method of their
class assigns it. That the parts also behave as they are used is for `tests/trainer/engine/test_private_api.py`.
"""

from __future__ import annotations

import dis
import importlib
import inspect
from collections.abc import Iterator, Mapping
from types import CodeType

from ..errors import RuntimeSetupError

TRIED_KERAS = "3.15.1 and 3.16.0.dev2026102704"
TRIED_TENSORFLOW = "2.21.0"

# What makes up the state of Keras's callbacks, beside their settings.
CALLBACK_FIELDS: Mapping[str, tuple[str, ...]] = {
    "EarlyStopping": ("wait", "stopped_epoch", "best", "best_epoch", "best_weights"),
    "ReduceLROnPlateau": ("wait", "cooldown_counter", "best"),
    "ModelCheckpoint": ("best", "_current_epoch", "_batches_seen_since_last_saving", "_last_batch_seen"),
    "CSVLogger": ("keys", "append"),
    "SwapEMAWeights": ("_ema_weights_in_model",),
    "TensorBoard": (
        "_global_train_batch",
        "_global_test_batch",
        "_previous_epoch_iterations",
        "_epoch_start_time",
        "_batch_start_time",
    ),
}

# Methods that TFOptimizer overrides for tf.distribute; the pure update puts the originals back.
STATELESS_METHODS = (
    "stateless_apply",
    "assign",
    "assign_add",
    "assign_sub",
    "_apply_weight_decay",
    "_backend_update_step",
    "_overwrite_model_variables_with_average_value",
    "_backend_increment_gradient_accumulators",
)

# Functions that divide a loss by the number of replicas, and take that back.
LOSS_SCALERS = ("scale_loss_for_distribution", "unscale_loss_for_distribution")

# Module, or module:class or function in it, to what it must have: attributes, or strings that it looks up.
NAMES: Mapping[str, tuple[str, ...]] = {
    "keras.src.backend": ("compute_output_spec",),
    "keras.src.backend.common.global_state": ("get_global_attribute", "set_global_attribute"),
    "keras.src.losses.loss": LOSS_SCALERS,
    "keras.src.random.seed_generator": ("GLOBAL_SEED_GENERATOR", "global_seed_generator"),
    "keras.src.utils.naming": ("reset_uids",),
    "keras.src.utils.naming:uniquify": ("object_name_uids",),
    "keras.src.utils.python_utils": ("is_default",),
    "keras.src.trainers.compile_utils:CompileMetrics": ("metrics", "built"),
    "keras.src.trainers.compile_utils:CompileLoss": ("metrics", "built"),
    "keras.src.trainers.data_adapters.data_adapter:DataAdapter": (
        "get_tf_dataset",
        "num_batches",
        "batch_size",
        "has_partial_batch",
        "partial_batch_size",
    ),
    "keras.src.optimizers.base_optimizer:BaseOptimizer": (
        *STATELESS_METHODS,
        "apply",
        "ema_overwrite_frequency",
        "use_ema",
        "_backend_apply_gradients",
        "_clip_gradients",
        "_exclude_from_weight_decay",
        "_exclude_from_weight_decay_pattern",
        "_learning_rate",
        "_model_variables_moving_average",
        "_trainable_variables",
        "_update_model_variables_moving_average",
    ),
    "keras.src.backend.tensorflow.optimizer:TFOptimizer": (
        *STATELESS_METHODS,
        "_clip_by_norm",
        "_distribution_strategy",
        "_var_key",
    ),
    "keras.optimizers:LossScaleOptimizer": ("inner_optimizer",),
    "keras:Model": (
        "make_train_function",
        "make_test_function",
        "train_function",
        "test_function",
        "_compile_config",
        "_flatten_metrics_in_order",
        "_distribute_strategy",
        "_compile_loss",
        "_compile_metrics",
        "_flatten_layers",
        "_get_own_metrics",
        "_loss_tracker",
        "_maybe_symbolic_build",
        "_symbolic_build",
    ),
    "keras:Layer": ("_loss_ids", "_metrics", "_seed_generators"),
    "keras:Variable": ("_value",),
    "keras:StatelessScope": (
        "state_mapping",
        "collect_losses",
        "losses",
        "original_scope",
        "add_update",
        "get_current_value",
    ),
    "keras.random:SeedGenerator": ("state",),
    "keras.metrics:MeanMetricWrapper": ("_fn",),
    "keras.metrics:Mean": ("total", "count", "_metrics"),
    "keras.callbacks:EarlyStopping": (*CALLBACK_FIELDS["EarlyStopping"], "monitor_op", "min_delta"),
    "keras.callbacks:ReduceLROnPlateau": (*CALLBACK_FIELDS["ReduceLROnPlateau"], "monitor_op", "min_delta"),
    "keras.callbacks:ModelCheckpoint": (*CALLBACK_FIELDS["ModelCheckpoint"], "monitor_op", "save_freq"),
    "keras.callbacks:CSVLogger": (*CALLBACK_FIELDS["CSVLogger"], "append_header", "csv_file"),
    "keras.callbacks:SwapEMAWeights": CALLBACK_FIELDS["SwapEMAWeights"],
    "keras.callbacks:TensorBoard": (
        *CALLBACK_FIELDS["TensorBoard"],
        "update_freq",
        "_pop_writer",
        "_prev_summary_state",
        "_push_writer",
        "_train_writer",
        "_writers",
    ),
    "tensorflow.python.eager.context:Context": ("function_call_options",),
    "tensorflow.python.eager.record": ("record_operation",),
    "tensorflow.python.eager.polymorphic_function.attributes": ("DISABLE_ACD",),
    "tensorflow.python.framework.func_graph:FuncGraph": ("captures", "watch_variable"),
    "tensorflow.python.distribute.values:DistributedVariable": ("_distributed_container",),
    "tensorflow.python.ops.resource_variable_ops:BaseResourceVariable": ("_trainable",),
    "tensorflow:__internal__": ("autograph",),
}


def check_private_names() -> None:
    """Look for every private name that Heliostat uses in the Keras and TensorFlow that are installed.

    Raises:
        RuntimeSetupError: Keras runs on another backend than TensorFlow, or names are missing: which, and with which
            versions Heliostat was tried.
    """
    import keras
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        raise RuntimeSetupError(
            f"Keras runs on the backend {keras.backend.backend()!r}, and Heliostat trains on TensorFlow only. "
            "Set KERAS_BACKEND=tensorflow before Keras is imported."
        )
    missing = [name for place, names in NAMES.items() for name in missing_names(place, names)]
    if missing:
        raise RuntimeSetupError(
            f"Keras {keras.__version__} with TensorFlow {tf.__version__} lacks {', '.join(missing)}, "
            f"which Heliostat uses. It was tried with Keras {TRIED_KERAS} and TensorFlow {TRIED_TENSORFLOW}: install "
            "one of these, or a Heliostat made for yours."
        )


def missing_names(place: str, names: tuple[str, ...]) -> list[str]:
    """Those of `names` that a module, class or function does not have.

    Args:
        place: ``module`` or ``module:name of a class or function in it``.
        names: attributes, those of a class's objects too; for a function strings that it uses.

    Returns:
        What to tell the user: ``Class.name`` for each that is missing, or the module or class alone where that is.
    """
    module_name, _, owner_name = place.partition(":")
    try:
        module = importlib.import_module(module_name)
        owner = getattr(module, owner_name) if owner_name else module
    except ImportError:
        return [f"the module {module_name}"]
    except AttributeError:
        return [f"{module_name}.{owner_name}"]
    unknown = {name for name in names if not hasattr(owner, name)}
    unknown -= _assigned(owner, unknown) if isinstance(owner, type) else _strings(owner)
    return [f"{owner_name or module_name}.{name}" for name in names if name in unknown]


def _assigned(kind: type, names: set[str]) -> set[str]:
    """Those of `names` that methods of a class assign as attributes."""
    members = [member for base in kind.__mro__ for member in vars(base).values()]
    methods = [member.fset if isinstance(member, property) else member for member in members]
    codes = [code for method in methods if callable(method) for code in _codes(inspect.unwrap(method))]
    speaking = [code for code in codes if not names.isdisjoint(code.co_names)]
    return {each.argval for code in speaking for each in dis.get_instructions(code) if each.opname == "STORE_ATTR"}


def _strings(function: object) -> set[str]:
    """The strings that a function uses; none for a module."""
    return {text for code in _codes(function) for text in code.co_consts if isinstance(text, str)}


def _codes(function: object) -> Iterator[CodeType]:
    """The code of a function, and of the functions in it."""
    found = [getattr(function, "__code__", None)]
    while found:
        code = found.pop()
        if isinstance(code, CodeType):
            yield code
            found += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
