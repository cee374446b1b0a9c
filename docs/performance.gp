# Draws docs/performance.svg of docs/performance.csv, which ./dev bench --chunks writes: ./dev bench plot
set datafile separator comma
set terminal svg size 820,560 font "sans-serif,13" background "white"
set output "docs/performance.svg"
set key outside top center horizontal
set grid ytics lc rgb "#dddddd"
set border 3
set xtics nomirror
set ytics nomirror
set multiplot layout 2,1 title "100 million chunks of 32 octets pushed by each daemon, mutual TLS, window of 256"
set ylabel "microseconds on a processor per chunk"
set yrange [0:*]
plot "docs/performance.csv" using ($2/1e6):4 skip 1 with lines lw 1.5 lc rgb "#1f6feb" title "leader", \
     "docs/performance.csv" using ($3/1e6):5 skip 1 with lines lw 1.5 lc rgb "#d97706" title "follower"
set xlabel "million chunks"
set ylabel "resident memory in MB"
plot "docs/performance.csv" using ($2/1e6):6 skip 1 with lines lw 1.5 lc rgb "#1f6feb" title "leader", \
     "docs/performance.csv" using ($3/1e6):7 skip 1 with lines lw 1.5 lc rgb "#d97706" title "follower"
unset multiplot
