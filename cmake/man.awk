# A page of docs/reference as a manual page: restricted Markdown on standard input, roff (man macros) on standard output.
#
#   awk -v version=0.1.0 -f man.awk docs/reference/mutex.md >weft_mutex.3
#
# What a page may hold: a first line `# name(3)`; headings `##` and `###`; paragraphs; lists of one level (`- ` and `1. `,
# continued by indented lines), an item that begins with `code`: becoming a tagged paragraph; fenced code; and, within
# text, `code`, **bold**, *italic* and [links](to.md). Anything else is refused, so that a page never comes out garbled.
# POSIX awk only: mawk, gawk and busybox will do.

function refuse(why)
{
    printf "%s:%d: %s\n", FILENAME, FNR, why > "/dev/stderr"
    failed = 1
    exit 1
}

# Literal characters: in code the dash and the quotes must stay what they are in ASCII.
function literal(text, code,    i, c, out)
{
    out = ""
    for (i = 1; i <= length(text); i++) {
        c = substr(text, i, 1)
        if (c == "\\")
            c = "\\e"
        else if (code && c == "-")
            c = "\\-"
        else if (code && c == "'")
            c = "\\(aq"
        else if (c == "`")
            c = "\\(ga"
        else if (c == "^")
            c = "\\(ha"
        else if (c == "~")
            c = "\\(ti"
        out = out c
    }
    return out
}

function link(text, target)
{
    if (text ~ /^[a-z_0-9]+\([0-9]\)$/)
        return "\\fB" substr(text, 1, length(text) - 3) "\\fR" substr(text, length(text) - 2)
    if (target ~ /^https?:/)
        return literal(text, 0) " (" literal(target, 1) ")"
    return literal(text, 0)
}

# The part of `rest` before `mark`; sets after_mark to what follows it.
function upto(rest, mark,    at)
{
    at = index(rest, mark)
    if (at == 0)
        refuse("no closing " mark)
    after_mark = substr(rest, at + length(mark))
    return substr(rest, 1, at - 1)
}

function inline(rest,    out, c, text)
{
    out = ""
    while (rest != "") {
        c = substr(rest, 1, 1)
        if (c == "`") {
            out = out "\\fB" literal(upto(substr(rest, 2), "`"), 1) "\\fR"
            rest = after_mark
        } else if (substr(rest, 1, 2) == "**") {
            out = out "\\fB" literal(upto(substr(rest, 3), "**"), 0) "\\fR"
            rest = after_mark
        } else if (rest ~ /^\*[^ *]/) {
            out = out "\\fI" literal(upto(substr(rest, 2), "*"), 0) "\\fR"
            rest = after_mark
        } else if (rest ~ /^\[[^]]*\]\(/) {
            text = upto(substr(rest, 2), "](")
            rest = after_mark
            text = link(text, rest ~ /^[^)]*\)/ ? upto(rest, ")") : "")
            out = out text
            rest = after_mark
        } else {
            out = out literal(c, 0)
            rest = substr(rest, 2)
        }
    }
    return out
}

# A line that begins with a control character would be a request.
function text_line(line)
{
    if (line ~ /^[.']/)
        line = "\\&" line
    print line
}

function flush_paragraph(    tag, at)
{
    if (paragraph == "")
        return
    if (kind == "item" && match(paragraph, /^`[^`]*`(, `[^`]*`)*: /)) {
        tag = substr(paragraph, 1, RLENGTH - 2)
        print ".TP"
        text_line(inline(tag))
        text_line(inline(substr(paragraph, RLENGTH + 1)))
    } else if (kind == "item") {
        print ".IP \\(bu 2"
        text_line(inline(paragraph))
    } else if (kind == "number") {
        at = index(paragraph, " ")
        print ".IP " substr(paragraph, 1, at - 1) " 3"
        text_line(inline(substr(paragraph, at + 1)))
    } else if (section == "NAME") {
        if (!(at = index(paragraph, " - ")))
            refuse("NAME without \" - \"")
        print literal(substr(paragraph, 1, at - 1), 1) " \\- " inline(substr(paragraph, at + 3))
    } else {
        if (!after_heading)
            print ".PP"
        text_line(inline(paragraph))
    }
    paragraph = ""
    after_heading = 0
}

FNR == 1 {
    if (!match($0, /^# [a-z_0-9]+\([0-9]\)$/))
        refuse("the first line must be \"# name(3)\"")
    name = substr($0, 3, length($0) - 5)
    chapter = substr($0, length($0) - 1, 1)
    print ".\\\" Generated from docs/reference; do not edit."
    printf ".TH %s %s \"\" \"weft %s\" \"weft manual\"\n", toupper(name), chapter, version
    # Names are to be searched for and copied: neither hyphenated nor spread out. (.nh alone does not
    # last: groff's macros set hyphenation to register HY again.)
    print ".nr HY 0\n.nh\n.ad l"
    next
}

/[^\t -~]/ { refuse("not ASCII") }

/^```/ {
    if (in_code) {
        print ".EE"
        print ".RE"
        in_code = 0
    } else {
        flush_paragraph()
        print after_heading ? ".RS 0" : ".PP\n.RS 4"
        print ".EX"
        in_code = 1
        after_heading = 0
    }
    kind = ""
    next
}

in_code { text_line(literal($0, 1)); next }

/^## / {
    flush_paragraph()
    section = substr($0, 4)
    printf ".SH %s\n", section
    after_heading = 1
    kind = ""
    next
}

/^### / {
    flush_paragraph()
    printf ".SS %s\n", inline(substr($0, 5))
    after_heading = 1
    kind = ""
    next
}

/^$/ { flush_paragraph(); kind = ""; next }

/^- / { flush_paragraph(); kind = "item"; paragraph = substr($0, 3); next }

/^[0-9]+\. / { flush_paragraph(); kind = "number"; paragraph = $0; next }

/^(#|\||>|<|\*|\t|    )/ { refuse("not in the Markdown that manual pages are made of") }

/^ / {
    if (paragraph == "" || kind == "")
        refuse("an indented line that continues no list item")
    sub(/^ +/, "")
    paragraph = paragraph " " $0
    next
}

{
    if (kind != "" && kind != "text")
        refuse("an item must be continued by indented lines")
    kind = "text"
    paragraph = paragraph == "" ? $0 : paragraph " " $0
}

END {
    if (failed)
        exit 1
    if (in_code)
        refuse("unclosed code")
    flush_paragraph()
}
