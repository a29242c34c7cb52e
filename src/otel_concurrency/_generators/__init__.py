"""What is suspended and resumed: generators keep their own context, and their consumers theirs."""
