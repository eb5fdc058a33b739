"""`--format`: Go's template language as far as docker's users write it."""

from __future__ import annotations

import pytest

from lading.cli.template import Template
from lading.cli.template_words import TemplateError

DATA = {
    "Name": "/web",
    "Count": 3,
    "Zero": 0,
    "Half": 0.5,
    "On": True,
    "None": None,
    "Empty": [],
    "List": ["a", "b", "c"],
    "Map": {"k": "v", "dotted.key": {"in": 1}, "a": "z"},
    "Nested": {"Deep": {"Er": "x"}},
    "Rows": [{"N": 1, "T": "one"}, {"N": 2, "T": "two"}],
    "Long": "abcdefghijklmnop",
}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{{.Name}}", "/web"),
        ("{{ .Nested.Deep.Er }}", "x"),
        ("{{.Count}} {{.Half}} {{.On}} {{.None}} {{.Zero}}", "3 0.5 true <no value> 0"),
        ("{{.List}} {{.Map}}", "[a b c] map[a:z dotted.key:map[in:1] k:v]"),
        ("{{json .List}}", '["a","b","c"]'),
        ("{{.Map | json}}", '{"k":"v","dotted.key":{"in":1},"a":"z"}'),
        ('{{index .Map "dotted.key" "in"}}', "1"),
        ('{{index .Map "nothing"}}|{{index .List 1}}', "<no value>|b"),
        ("{{(index .Rows 1).T}}", "two"),
        ("{{with index .Rows 0}}{{.T}}{{end}}", "one"),
        ("{{range .List}}[{{.}}]{{end}}", "[a][b][c]"),
        ("{{range $i, $e := .List}}{{$i}}={{$e}};{{end}}", "0=a;1=b;2=c;"),
        ("{{range $k, $v := .Map}}{{$k}} {{end}}", "a dotted.key k "),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range .Rows}}{{.N}}{{if eq .N 1}},{{end}}{{end}}", "1,2"),
        ('{{range .List}}{{if eq . "b"}}{{break}}{{end}}{{.}}{{end}}', "a"),
        ('{{range .List}}{{if eq . "b"}}{{continue}}{{end}}{{.}}{{end}}', "ac"),
        ("{{if .On}}up{{else}}down{{end}}", "up"),
        ("{{if .Zero}}a{{else if .Empty}}b{{else if .Count}}c{{else}}d{{end}}", "c"),
        ("{{if and .On .Count}}y{{end}}{{if or .Zero .None}}n{{end}}{{if not .Zero}}z{{end}}", "yz"),
        ("{{and .Zero .Nope}}", "0"),  # Go stops at the first false one
        (
            '{{eq .Count 3}} {{ne .Name "x"}} {{lt .Count 4}} {{ge .Count 4}} {{eq .Count 1 2 3}}',
            "true true true false true",
        ),
        ("{{len .List}} {{len .Map}} {{len .Name}}", "3 3 4"),
        ('{{join .List ", "}}', "a, b, c"),
        ('{{upper .Name}} {{lower "ABC"}} {{title "hello world"}}', "/WEB abc Hello World"),
        ('{{split "a:b" ":"}} {{(split "a:b" ":") | len}}', "[a b] 2"),
        ("{{slice .Long 0 12}} {{slice .Long 14}} {{truncate .Long 3}}", "abcdefghijkl op abc"),
        (
            '{{printf "%s=%d %v %q %05.1f %x|%-5s|%5s|%%" .Name .Count .On .Name .Half 255 "a" "b"}}',
            '/web=3 true "/web" 000.5 ff|a    |    b|%',
        ),
        ('{{printf "%d %s" .Count}}', "3 %!s(MISSING)"),
        ("{{println .Name .Count}}", "/web 3\n"),
        ('{{print .Count .Count "x" .Name}}', "3 3x/web"),
        ("{{pad .Name 1 2}}|", " /web  |"),
        ("{{/* nothing */}}{{- .Name -}}  x", "/webx"),
        ("a  {{- .Count}} b", "a3 b"),
        ("{{$x := .Name}}{{$x}}", "/web"),
        ("{{$x := 0}}{{range .Rows}}{{$x = .N}}{{end}}{{$x}}", "2"),
        ("{{$}}" if False else "{{$.Name}}{{range .Rows}}{{$.Count}}{{end}}", "/web33"),
        ('{{`raw "quotes"`}} {{"a\\tb"}}', 'raw "quotes" a\tb'),
        ("{{true}} {{1.5}} {{0x10}}", "true 1.5 16"),
        ('{{html "<a>"}} {{urlquery "a b&c"}}', "&lt;a&gt; a+b%26c"),
        ("{{with .None}}x{{else}}y{{end}}", "y"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ('{{.Name | printf "%s-%s" "a"}}', "a-/web"),
    ],
)
def test_renders_as_go_does(text: str, wanted: str) -> None:
    assert Template(text).render(DATA) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{.Nme}}", "there is no field 'Nme'. Did you mean .Name?"),
        ("{{.Nested.Deep.Nothing}}", "There are: Er."),
        ("{{.Name.X}}", "can't evaluate field X"),
        ("{{.None.X}}", "nil data; no entry for key 'X'"),
        ("{{.Name", "an action is not closed"),
        ("{{if .On}}x", "an {{end}} is missing"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{else}}", "unexpected {{else}}"),
        ("{{nothing .Name}}", "function 'nothing' not defined"),
        ("{{jsno .Name}}", "Did you mean 'json'?"),
        ("{{}}", "missing value for command"),
        ("{{.Name |}}", "missing value for command"),
        ("{{(.Name}}", "a '(' is not closed"),
        ("{{.Name)}}", "unexpected ')'"),
        ('{{"abc}}', "not closed"),
        ("{{$y}}", "undefined variable '$y'"),
        ("{{range .Count.X}}{{end}}", "can't evaluate field X"),
        ("{{range .Name}}{{end}}", "range can't iterate over"),
        ("{{index .List 9}}", "index out of range"),
        ("{{slice .Long 5 99}}", "slice bounds out of range"),
        ("{{upper .Count}}", "error calling upper"),
        ("{{len .Count}}", "error calling len"),
        ("{{.Name 1}}", "can't give argument to non-function"),
        ('{{template "x"}}', "has no use in a format"),
        ("{{1 2}}", "can't give argument"),
        ("{{break}}", "outside {{range}}"),
        ("{{.Name.}}", "space is missing"),
        ("{{eq .Name 1}}", "incompatible types"),
        ('{{printf "%99999d" 1}}', "too wide"),
        ("{{§}}", "unexpected '§'"),
        ("{{if}}x{{end}}", "missing value for command"),
        ("{{if .On}}" * 150, "nested too deep"),
    ],
)
def test_wrong_templates_say_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(text).render(DATA)
    assert message in str(caught.value)


def test_no_attribute_of_python_can_be_reached() -> None:
    for text in ("{{.__class__}}", "{{.List.__len__}}", "{{(json .).__class__}}", "{{.Name.upper}}"):
        with pytest.raises(TemplateError):
            Template(text).render(DATA)


def test_a_lenient_template_prints_no_value() -> None:
    assert Template("{{.Nope}} {{.Nope.Deeper}}", strict=False).render(DATA) == "<no value> <no value>"


def test_bounds() -> None:
    with pytest.raises(TemplateError):
        Template("{{range 9}}{{index .Empty 1}}{{end}}").render({"Empty": []})
    assert len(Template("{{pad .X 99999999 0}}").render({"X": "a"})) == 1001
