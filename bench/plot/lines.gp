# Lines over the number of workers. Data: the number first, then a column a series, named in the first line.
# Expects besides what style.gp does: style (its path), data, series (how many),
# ideal (cores, to draw the ideal speedup; 0: not).

load style
set style data linespoints
set logscale x 2
set xtics () 
stats data using 1 every ::1 nooutput
set for [i = 0:12] xtics add (sprintf("%d", 2**i) 2**i)
set xrange [STATS_min * 0.9:STATS_max * 1.1]
set yrange [0:*]
array colors[6] = ["#084594", "#d94801", "#636363", "#238b45", "#6a51a3", "#9ecae1"]
if (ideal) {
    set label "cores" at ideal, graph 0.03 left offset 0.5, 0 textcolor rgb "#999999"
    set arrow from ideal, graph 0 to ideal, graph 1 nohead dashtype 3 linecolor rgb "#999999"
    plot for [i = 2:series + 1] data using 1:i title columnheader(i) linewidth 2.5 pointtype 7 pointsize 1.2 \
             linecolor rgb colors[i - 1], \
         [STATS_min:STATS_max] (x < ideal ? x : ideal) title "as many as there are cores" with lines \
             dashtype 2 linewidth 1.5 linecolor rgb "#999999"
} else {
    plot for [i = 2:series + 1] data using 1:i title columnheader(i) linewidth 2.5 pointtype 7 pointsize 1.2 \
             linecolor rgb colors[i - 1]
}
