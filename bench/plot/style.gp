# What all plots share: the terminal for the wanted format, fonts, a quiet frame and grid.
# Expects: form ("svg" or "png"), out, title, xlabel, ylabel.

if (form eq "svg") {
    set terminal svg size 960,540 dynamic enhanced font "DejaVu Sans,14" background rgb "white"
} else {
    set terminal pngcairo size 1440,810 enhanced font "DejaVu Sans,16" background rgb "white"
}
set output out
set encoding utf8
set title title font ",20" noenhanced
set xlabel xlabel noenhanced
set ylabel ylabel noenhanced
set border 3 linecolor rgb "#666666" linewidth 1
set tics nomirror textcolor rgb "#333333"
set grid ytics linetype 1 linecolor rgb "#dddddd" linewidth 1
set key outside right top vertical Left reverse noenhanced samplen 1.5 spacing 1.3
set datafile separator "\t"
set datafile missing "NaN"
