# The simulator dies while a daemon drives its card: registers read all ones, and a reset would never return. After this
# nothing can be done with the card, and the machine is ended from outside.

simulator_ends() { start_spare dead && ask end 3 && ends_as_gone 30; }

others_go_on() { equal "the state of the service" active "$(systemctl is-active "$(unit "$card_1")")" && keys; }

check "a simulator that ends takes its daemon along" simulator_ends
check "the other cards' daemons do not notice" others_go_on
