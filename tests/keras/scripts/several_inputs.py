"""Several inputs and outputs by name, from dicts of arrays: as the guide about the functional API has it."""

import keras
import numpy as np

# on Heliostat: from heliostat.trainer import Trainer
from keras import layers

keras.utils.set_random_seed(0)
keras.config.set_floatx("float64")

num_words, num_tags, num_departments = 20, 4, 3
random = np.random.default_rng(0)
title_data = random.integers(num_words, size=(24, 5))
body_data = random.integers(num_words, size=(24, 7))
tags_data = random.integers(2, size=(24, num_tags)).astype("float64")
priority_targets = random.uniform(size=(24, 1))
dept_targets = random.integers(2, size=(24, num_departments)).astype("float64")


def ticket_model():
    title_input = keras.Input(shape=(None,), name="title")
    body_input = keras.Input(shape=(None,), name="body")
    tags_input = keras.Input(shape=(num_tags,), name="tags")
    title_features = layers.LSTM(4)(layers.Embedding(num_words, 5)(title_input))
    body_features = layers.LSTM(3)(layers.Embedding(num_words, 5)(body_input))
    x = layers.concatenate([title_features, body_features, tags_input])
    priority_pred = layers.Dense(1, name="priority")(x)
    department_pred = layers.Dense(num_departments, name="department")(x)
    model = keras.Model(
        inputs=[title_input, body_input, tags_input],
        outputs={"priority": priority_pred, "department": department_pred},
    )
    model.compile(
        optimizer=keras.optimizers.SGD(1e-1),
        loss={
            "priority": keras.losses.BinaryCrossentropy(from_logits=True),
            "department": keras.losses.CategoricalCrossentropy(from_logits=True),
        },
        loss_weights={"priority": 1.0, "department": 0.2},
    )
    return model


model = ticket_model()  # on Heliostat: model = Trainer(ticket_model)
history = model.fit(
    {"title": title_data, "body": body_data, "tags": tags_data},
    {"priority": priority_targets, "department": dept_targets},
    epochs=2,
    batch_size=8,
    shuffle=False,
    verbose=0,
)
predictions = model.predict({"title": title_data, "body": body_data, "tags": tags_data}, verbose=0)

results = {**history.history, **predictions}
