from tests.model.cli import main

main()
