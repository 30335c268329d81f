"""What a learner sees and touches: checkers, figures, film, explorer, live panel."""
