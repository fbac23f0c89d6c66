"""What is taken out of a text before it is a row, a log or a message."""

import os

import pytest

from results.secrets import without_secrets

SECRET = "wJalr'XUtn\\FEMI/K7MDENG"


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "github_token", "DB_PASSWORD"])
def test_values_of_variables_that_are_named_like_secrets_are_taken_out(monkeypatch, name):
    monkeypatch.setenv(name, SECRET)
    assert without_secrets(f"error: {SECRET} is wrong") == "error: … is wrong"


def test_secrets_are_taken_out_of_a_printed_environment(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    text = without_secrets(repr(dict(os.environ)))
    assert "FEMI" not in text
    assert "AWS_SECRET_ACCESS_KEY" in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "false"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/a/credentials"),
        ("KEYBOARD", "default.toml"),
    ],
)
def test_words_that_are_no_secrets_stay(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert without_secrets(f"{value}: no such file") == f"{value}: no such file"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no https://me:pa55@example.org/x, as a@b says", "no https://…@example.org/x, as a@b says"),
        ("nor s3://key:se/cr+et@bucket/y", "nor s3://…@bucket/y"),
        ("http:/token@host/grid.toml: no such grid file", "http:/…@host/grid.toml: no such grid file"),
        ("https://host/a/b@c and x://y:1/z", "https://host/a/b@c and x://y:1/z"),
    ],
)
def test_user_and_password_of_an_address_are_taken_out(text, told):
    assert without_secrets(text) == told


@pytest.mark.parametrize(
    "name", ["DB_PASS", "MYSQL_PWD", "STRIPE_KEY", "HF_AUTH", "SSH_PASSPHRASE", "GOOGLE_CREDENTIALS"]
)
def test_many_names_are_those_of_secrets(name, monkeypatch):
    monkeypatch.setenv(name, "hunter44-and-more")
    assert without_secrets("it was hunter44-and-more") == "it was …"


def test_a_secret_that_begins_another_leaves_nothing_of_it(monkeypatch):
    monkeypatch.setenv("A_TOKEN", "hunter44")
    monkeypatch.setenv("B_TOKEN", "hunter44-prod/x")
    assert without_secrets("hunter44-prod/x hunter44 hunter44-prod%2Fx") == "… … …"


@pytest.mark.parametrize("name", ["PWD", "OLDPWD", "RAY_AUTH_MODE", "GIT_AUTHOR_NAME", "SSH_AUTH_SOCK"])
def test_other_names_are_not(name, monkeypatch):
    monkeypatch.setenv(name, "disabled-or-a-folder")
    assert without_secrets("disabled-or-a-folder") == "disabled-or-a-folder"
