# The functions that a header declares or that the SYNOPSIS of a reference page shows: a line "name<TAB>prototype" each,
# with the prototype's white space normalised and its attributes removed, so that both can be compared.
#
#   awk -f man.prototypes.awk include/weft/sync.h
#   awk -f man.prototypes.awk docs/reference/mutex.md
#
# In a header what stands between WEFT_API and the next semicolon counts; in a page every statement of the SYNOPSIS'
# code outside braces that is not a type. POSIX awk only.

function emit(statement,    name)
{
    if (header && !sub(/.*WEFT_API/, "", statement))
        return
    gsub(/WEFT_NODISCARD/, "", statement)
    gsub(/[ \t]+/, " ", statement)
    sub(/^ /, "", statement)
    sub(/ $/, "", statement)
    gsub(/ \(/, "(", statement)
    if (statement ~ /^(typedef|struct|enum|union)[ {]/ || !match(statement, /weft_[a-z0-9_]+\(/))
        return
    name = substr(statement, RSTART, RLENGTH - 1)
    print name "\t" statement
}

FNR == 1 {
    header = FILENAME ~ /\.h$/
    statement = ""
    depth = in_comment = wanted = in_code = 0
}

!header {
    if (/^## /)
        wanted = $0 == "## SYNOPSIS"
    if (/^```/) {
        in_code = !in_code
        next
    }
    if (!wanted || !in_code)
        next
}

# Comments and directives go; a continued directive goes with its continuation.
{
    line = $0
    if (directive || line ~ /^[ \t]*#/) {
        directive = line ~ /\\$/
        next
    }
    kept = ""
    while (line != "") {
        if (in_comment) {
            at = index(line, "*/")
            if (!at)
                break
            line = substr(line, at + 2)
            in_comment = 0
        } else if ((at = index(line, "/*"))) {
            kept = kept substr(line, 1, at - 1)
            line = substr(line, at + 2)
            in_comment = 1
        } else {
            kept = kept line
            line = ""
        }
    }
    if (!header)
        sub(/\/\/.*/, "", kept)
    n = length(kept)
    for (i = 1; i <= n; i++) {
        c = substr(kept, i, 1)
        # (extern "C" would open a brace as well; in the headers a macro hides it.)
        if (c == "{") {
            depth++
            if (depth == 1)
                opened = statement
        } else if (c == "}") {
            depth--
            # After the body of an inline function there is no semicolon, after that of a type there is.
            if (depth == 0)
                statement = opened ~ /\)[ \t]*$/ ? "" : opened
        } else if (depth == 0 && c == ";") {
            emit(statement)
            statement = ""
        } else if (depth == 0) {
            statement = statement c
        }
    }
    if (depth == 0)
        statement = statement " "
}
