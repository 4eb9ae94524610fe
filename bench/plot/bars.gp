# Grouped bars. Data: a line a group (its name first), a column a series, named in the first line.
# Expects besides what style.gp does: style (its path), data, groups and series (how many),
# colors (separated by blanks), logscale (0 or 1).

load style
set style data histograms
set style histogram clustered gap 1
set style fill solid 1.0 noborder
set boxwidth 0.9
set tics scale 0.5
set xtics scale 0
set xrange [-0.6:groups - 0.4]
if (xlabel eq "") {
    set bmargin 5 # names of groups may take three lines
}
if (logscale) {
    set logscale y
    set format y "%g"
    set grid mytics linetype 1 linecolor rgb "#f2f2f2"
} else {
    set yrange [0:*]
}
plot for [i = 2:series + 1] data using i:xticlabels(1) title columnheader(i) linecolor rgb word(colors, i - 1)
