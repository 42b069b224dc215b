"""A URI names a place, keeps what belongs to the store at its end, and never carries a secret any further."""

from __future__ import annotations

import pytest

from flopray.errors import InputError
from flopray.store.uri import Location, is_uri


@pytest.mark.parametrize("text", ["s3://b", "s3://b/x", "gs://b/x", "hdfs://h:1/x", "file:///x", "S3:/b"])
def test_what_is_a_uri(text):
    assert is_uri(text)


@pytest.mark.parametrize("text", ["results", "/abs/olute", "a:b", "./s3://x", "c:/windows", ""])
def test_what_is_none(text):
    assert not is_uri(text)


def test_a_name_is_added_before_the_query():
    storage = Location.parse("s3://bucket/pre/fix/?endpoint_override=localhost:9000&scheme=http")
    run = storage.child("a run")
    assert str(run) == "s3://bucket/pre/fix/a%20run?endpoint_override=localhost:9000&scheme=http"
    assert Location.parse(str(run)) == run
    assert (run.name, run.key, run.bucket) == ("a run", "bucket/pre/fix/a run", "bucket")
    assert str(Location.parse("s3://bucket").child("r")) == "s3://bucket/r"


def test_the_same_place_by_other_words_is_the_same():
    one = Location.parse("s3://bucket/run?region=eu-central-1")
    assert one.identity == Location.parse("s3://bucket//run/").identity
    assert one.identity != Location.parse("s3://bucket/run?endpoint_override=localhost:1").identity


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIA123:SECRET@bucket/x",
        "s3://AKIA123:SEC/RET@bucket/x",
        "s3://AKIA123@bucket/SECRET",
        "s3://AKIA123:SECRET@bucket:99999999/x",
        "s3://AKIA123:SECRET/bucket",
        "s3://bucket/x?secret_key=SECRET",
        "abfs://box@account/x?sas_token=SECRET",
        "s3://bucket/x?endpoint_override=AKIA123:SECRET@localhost:9000",
        "abfs://AKIA123:SECRET@host/x",
        "s3://AKIA123:[SECRET@bucket/x",
    ],
)
def test_a_secret_is_refused_and_not_repeated(text):
    with pytest.raises(InputError) as caught:
        Location.parse(text)
    assert "\n" not in str(caught.value)
    assert "SECRET" not in str(caught.value).replace("AWS_SECRET_ACCESS_KEY", "")
    assert "AKIA123" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "about"),
    [
        ("file:///tmp/x", "give its path alone"),
        ("s3://", "names no bucket"),
        ("s3:/bucket/x", "names no bucket"),
        ("s3://bucket/../other", r"has \. or \.\. in it"),
        ("s3://bucket/a%2F..%2Fb", r"has \. or \.\. in it"),
        ("s3://bucket/a%0Ab", "what cannot be printed"),
        ("s3://bucket/x?retries=3", "unknown option 'retries'"),
        ("s3://bucket/x?scheme=ftp", "the value of scheme in the s3: URI is wrong"),
        ("s3://bucket/x?scheme", "cannot be read"),
        ("s3://bucket/x#there", "has a # in it"),
        ("s3://bucket/a\x00b", "is not a URI"),
    ],
)
def test_what_is_no_place_is_one_line(text, about):
    with pytest.raises(InputError, match=about) as caught:
        Location.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "uri", "said"),
    [
        (
            "AWS_ENDPOINT_URL",
            "http://minio:9000/",
            "s3://bucket/r",
            "add ?endpoint_override=minio:9000&scheme=http to the URI",
        ),
        (
            "AWS_ENDPOINT_URL_S3",
            "https://store.lab",
            "s3://bucket/r",
            "AWS_ENDPOINT_URL_S3 is not read, since workers may not",
        ),
        ("AWS_ENDPOINT_URL", "http://minio:9000", "s3://bucket/r?endpoint_override=other:1", ""),
        ("OTHER", "x", "s3://bucket/r", ""),
    ],
)
def test_an_endpoint_in_the_environment_is_named_with_what_to_write(variable, value, uri, said, monkeypatch):
    from flopray.store.remote.objects import _endpoint_hint

    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    hint = _endpoint_hint(Location.parse(uri))
    assert said in hint
    assert bool(hint) == bool(said)
