"""What a user sees: the names and signatures that are relied on, and that each explains itself by an example."""

import inspect
import types

import pytest

import probsoftmax as ps

SIGNATURES = {
    # numerics, losses
    "logsumexp": "(x, axis=-1, where=None)",
    "log_softmax": "(x, axis=-1, where=None)",
    "softmax": "(x, axis=-1, where=None)",
    "softmax_cross_entropy_with_integer_labels": "(logits, labels)",
    "softmax_cross_entropy": "(logits, labels)",
    "sigmoid_binary_cross_entropy": "(logits, labels)",
    "weston_watkins_hinge": "(logits, labels, margin=1.0)",
    "crammer_singer_hinge": "(logits, labels, margin=1.0)",
    "entropy": "(p)",
    "cross_entropy": "(p, q)",
    "kl_divergence": "(p, q)",
    # model
    "Params": "(weights, bias)",
    "init_params": "(d, k, dtype=None)",
    "Data": "(features, labels, weights, num_classes, classes=None)",
    "make_data": "(features, labels, *, weights=None, num_classes=None, classes=None)",
    "logits": "(params, features)",
    "predict_log_proba": "(params, features)",
    "predict_proba": "(params, features)",
    "predict": "(params, features)",
    "log_likelihood": "(params, data)",
    "negative_log_likelihood": "(params, data)",
    "GaussianPrior": "(precision=1.0, bias_precision=0.0, mean=0.0)",
    "log_prior": "(params, prior)",
    "log_joint": "(params, data, prior)",
    "mle_objective": "(params, data)",
    "map_objective": "(params, data, prior)",
    "svm_objective": "(params, data, prior)",
    "precision_from_sklearn": "(C)",
    "precision_from_glmnet": "(lam, n)",
    "precision_from_weight_decay": "(decay, n)",
    # fits
    "fit_mle": "(data, *, solver=None, init=None)",
    "fit_map": "(data, prior, *, solver=None, init=None)",
    "cross_validate": "(data, precisions, *, folds=5, key=None, prior=None, solver=None)",
    "leave_one_out": "(params, data, prior)",
    # uncertainty
    "laplace": "(params, data, prior)",
    "laplace_kronecker": "(params, data, prior)",
    "laplace_diagonal": "(params, data, prior)",
    "sample": "(posterior, key, num_samples)",
    "predictive_probit": "(posterior, features)",
    "predictive_monte_carlo": "(posterior, features, key, num_samples)",
    "log_evidence": "(params, data, prior)",
    "log_restricted_evidence": "(params, data, prior)",
    "fit_evidence": "(data, prior, *, groups=None)",
    "likelihood_ratio_test": "(full, restricted)",
    "separation": "(data)",
    "fit_temperature": "(logits, labels, *, weights=None)",
}
PUBLIC = {
    name: value
    for name, value in vars(ps).items()
    if not name.startswith("_") and not isinstance(value, types.ModuleType)
}
FUNCTIONS = {
    name: value for name, value in PUBLIC.items() if inspect.isfunction(inspect.unwrap(value))
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_signature_is_the_one_that_is_relied_on(name):
    parameters = inspect.signature(PUBLIC[name]).parameters.values()
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    assert str(inspect.Signature(bare)) == SIGNATURES[name]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_says_what_goes_in_what_comes_out_and_shows_it(name):
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    summary, _, rest = text.partition("\n")
    assert summary.strip()
    assert [part for part in ("Args:", "Returns:", ">>> ") if part not in rest] == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_of_a_function_is_explained(name):
    explained = inspect.getdoc(FUNCTIONS[name]).partition("Args:")[2]
    names = inspect.signature(FUNCTIONS[name]).parameters
    assert [argument for argument in names if f"    {argument}: " not in explained] == []


@pytest.mark.parametrize("name", [name for name in PUBLIC if inspect.isclass(PUBLIC[name])])
def test_a_class_says_what_it_is(name):
    assert (PUBLIC[name].__doc__ or "").strip()


def test_names_are_imported_as_themselves():
    assert [name for name, value in FUNCTIONS.items() if value.__name__ != name] == []


def test_the_version_is_one():
    assert len(ps.__version__.split(".")) >= 3
