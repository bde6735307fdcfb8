"""`evaluate review`: one offline page on which a person accepts, sends back or drops masks."""

from boxdepth.evaluate.review.page import Review, review_page
from boxdepth.evaluate.review.queue import review_order
from boxdepth.evaluate.review.reviews import review

__all__ = ["Review", "review", "review_order", "review_page"]
