"""A train_step of one's own with trackers in the metrics property: as the guide about customizing fit has it."""

import keras
import numpy as np
import tensorflow as tf

# on Heliostat: from heliostat.trainer import Trainer

keras.utils.set_random_seed(0)
keras.config.set_floatx("float64")


class CustomModel(keras.Model):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.mae_metric = keras.metrics.MeanAbsoluteError(name="mae")
        self.loss_fn = keras.losses.MeanSquaredError()

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.loss_fn(y, y_pred)
        trainable_vars = self.trainable_variables
        gradients = tape.gradient(loss, trainable_vars)
        self.optimizer.apply(gradients, trainable_vars)
        self.loss_tracker.update_state(loss)
        self.mae_metric.update_state(y, y_pred)
        return {"loss": self.loss_tracker.result(), "mae": self.mae_metric.result()}

    @property
    def metrics(self):
        return [self.loss_tracker, self.mae_metric]


def get_compiled_model():
    inputs = keras.Input(shape=(5,))
    outputs = keras.layers.Dense(1)(inputs)
    model = CustomModel(inputs, outputs)
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    return model


random = np.random.default_rng(0)
x = random.random((40, 5))
y = random.random((40, 1))

model = get_compiled_model()  # on Heliostat: model = Trainer(get_compiled_model)
history = model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
predictions = model.predict(x[:4], verbose=0)

results = {**history.history, "predictions": predictions}
